"""Scores of clean reference models, and p-values."""
