"""The bench: attacks x chains x detectors x mitigations x seeds, resumable, on one machine or many."""
