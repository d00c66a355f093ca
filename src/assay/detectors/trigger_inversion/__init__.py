"""Detectors that search for a trigger by gradients."""
