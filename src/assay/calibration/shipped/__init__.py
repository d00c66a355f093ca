"""Null distributions that ship with the package, made by ``benchmarks/run.py null_images``."""
