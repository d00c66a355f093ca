"""Detectors that try a list of triggers."""
