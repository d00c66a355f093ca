"""What a set of pictures is like, in five numbers.

A clean net leans by nature, to an extent that its data decide: digits under noise look like an eight, dim photos of
road signs lean more than photos of animals. So a model is compared with reference models on data like its own, and
this says which are. Only clean pictures enter, never the model: a backdoor cannot choose its judges.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

SIDE = 16
"""Pictures are compared at this size, so that size itself does not count."""

FEWEST = 2  # pictures
LEAST_LAYOUT = 0.005
LEAST_CONTRAST = 1e-3

Likeness = tuple[float, ...]

STEPS = (0.014, 0.0105, 0.0044, 0.011, 0.17)
"""How much each number varies between parts of one data set (standard deviations over the shipped null's families)."""


def likeness(x: Tensor) -> Likeness | None:
    """Of pictures (N, C, H, W) in [0, 1]; None for fewer than two, and for texts.

    Mean brightness; how much it differs between pictures; contrast within a picture; sharpness: steps between
    neighbouring pixels, in units of the contrast; log10 of the share of the variance that is the same in all pictures
    (digits are always in the middle).
    """
    if len(x) < FEWEST or not x.is_floating_point():
        return None
    grey = F.interpolate(x, (SIDE, SIDE), mode="area").mean(1)  # (N, SIDE, SIDE)
    contrast = max(float(grey.std((1, 2)).mean()), LEAST_CONTRAST)
    steps = float((grey[:, :, 1:] - grey[:, :, :-1]).abs().mean())
    shared = float(grey.mean(0).var() / max(float(grey.var(0).mean()), LEAST_CONTRAST**2))
    chance = 1 / len(x)  # what unrelated pictures share
    return (
        float(grey.mean()),
        float(grey.mean((1, 2)).std()),
        contrast,
        steps / contrast,
        math.log10(max(LEAST_LAYOUT, shared - chance)),
    )
