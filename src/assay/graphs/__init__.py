"""Computation graphs of models."""
