"""Detectors of poisoned encoders, and of classifiers made from them."""
