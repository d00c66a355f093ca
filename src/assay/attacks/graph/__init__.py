"""Attacks that edit the computation graph."""
