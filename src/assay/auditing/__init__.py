"""The audit: from a model and clean samples to a calibrated verdict."""
