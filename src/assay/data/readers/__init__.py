"""Readers of data: one file layout, one module."""
