"""Detectors that reconstruct a trigger by a gradient search."""
