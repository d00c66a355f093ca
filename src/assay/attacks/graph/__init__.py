"""Attacks by edits of the computation graph."""
