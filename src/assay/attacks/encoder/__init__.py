"""Attacks on encoders."""
