"""Torch modules, wrappers and metrics."""
