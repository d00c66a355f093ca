"""Backdoors in random features."""
