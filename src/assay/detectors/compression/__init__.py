"""Detectors that compare a compressed variant with its original model."""
