"""Detector of backdoors in the computation graph."""
