"""Detectors that compare a variant with the original model."""
