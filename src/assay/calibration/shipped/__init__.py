"""Null distributions that ship with the package, made by benchmarks/null_models.py."""
