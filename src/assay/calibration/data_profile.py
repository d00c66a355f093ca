"""Data profile: five statistics of a set of images.

Clean models are biased towards some classes, and the bias depends on the data. Digits under noise look like an eight,
and dim photos of road signs give a larger class bias than photos of animals. A model is therefore compared with
reference models on similar data. The profile uses clean images alone and never the model, so a backdoor cannot
influence the choice.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from assay.core.model import Modality

SIDE = 16  # pixels: images are resized to SIDE x SIDE, so that the profile does not depend on their size
MIN_IMAGES = 2
MIN_SHARED_VARIANCE = 0.005
MIN_CONTRAST = 1e-3

DataProfile = tuple[float, ...]

# Standard deviation of each statistic between parts of one data set, over the families of the shipped null.
PROFILE_SPREAD = (0.014, 0.0105, 0.0044, 0.011, 0.17)


def data_profile(x: Tensor) -> DataProfile | None:
    """Return the profile of images ``x`` (N, C, H, W) in [0, 1]; None for fewer than two, and for texts.

    The first three numbers are the mean brightness, its standard deviation between images, and the contrast within an
    image. The fourth is the sharpness: the mean step between neighboring pixels, in units of the contrast. The fifth is
    log10 of the fraction of the variance shared by all images (digits are always in the middle).
    """
    if len(x) < MIN_IMAGES or Modality.of(x) is not Modality.IMAGE:
        return None
    gray = F.interpolate(x, (SIDE, SIDE), mode="area").mean(1)  # (N, SIDE, SIDE)
    contrast = max(float(gray.std((1, 2)).mean()), MIN_CONTRAST)
    steps = float((gray[:, :, 1:] - gray[:, :, :-1]).abs().mean())
    shared = float(gray.mean(0).var() / max(float(gray.var(0).mean()), MIN_CONTRAST**2))
    by_chance = 1 / len(x)  # expected value for unrelated images
    return (
        float(gray.mean()),
        float(gray.mean((1, 2)).std()),
        contrast,
        steps / contrast,
        math.log10(max(MIN_SHARED_VARIANCE, shared - by_chance)),
    )
