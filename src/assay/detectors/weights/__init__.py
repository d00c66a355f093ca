"""Detectors that read weights."""
