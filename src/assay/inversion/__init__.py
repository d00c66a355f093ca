"""Gradient-based searches for triggers, shared by detectors and mitigations."""
