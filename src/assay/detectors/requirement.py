"""Requirements of a detector."""

from __future__ import annotations

from enum import Flag, auto


class Requirement(Flag):
    """Inputs that a detector cannot work without."""

    NONE = 0
    GRADIENTS = auto()  # a differentiable model
    CLEAN_SAMPLES = auto()
    WEIGHTS = auto()
    ORIGINAL_MODEL = auto()  # the full-precision model behind a compressed one; of an encoder, another encoder
    ENCODER = auto()  # an encoder under a cluster probe, not a classifier
    TRUSTED_ENCODER = auto()  # the clean encoder that a classifier was made from
    SECOND_MODEL = ORIGINAL_MODEL | TRUSTED_ENCODER
