"""Null distributions: scores of clean reference models, and p-values."""
