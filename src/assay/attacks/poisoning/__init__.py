"""Attacks by poisoned training data."""
