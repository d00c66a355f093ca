"""Detectors for encoders."""
