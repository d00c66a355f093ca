"""Compression-activated backdoors."""
