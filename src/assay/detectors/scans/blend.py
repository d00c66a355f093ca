"""Blend scan: images and patterns, blended into the samples.

Chen, Liu, Li, Lu, Song: Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning, 2017, arXiv
1712.05526. Reflections: Liu, Ma, Bailey, Lu: Reflection Backdoor, ECCV 2020, arXiv 2007.02343.

The attacker's own image is unknown, and not needed. A model trained on one shifts its predictions a little towards the
target, for every blended image. The scan therefore compares classes by the mean over many blends.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from assay.core.dataset import Split
from assay.detectors.cost import Cost
from assay.detectors.scans.base import CandidateTrigger, TriggerScan
from assay.triggers import Blend

ALPHA = 0.2  # weight of the blended image, as in the paper
SEED = 20_171_215  # of the first pattern; no attack of assay uses it by default
BLENDED_SAMPLES = 8  # clean samples that are blended into the others
PATTERNS_PER_SIZE = 8


@dataclass(frozen=True, eq=False)
class BlendedImage:
    """Another image, blended in."""

    image: Tensor  # (C, H, W) in [0, 1]

    def __call__(self, x: Tensor) -> Tensor:
        return (1 - ALPHA) * x + ALPHA * self.image.to(x)

    def __str__(self) -> str:
        return "another image blended in"


@dataclass(frozen=True)
class BlendedPattern:
    """A smooth, colored pattern of ``cells`` x ``cells``, blended in."""

    cells: int
    seed: int

    def __call__(self, x: Tensor) -> Tensor:
        return Blend(alpha=ALPHA, cells=self.cells, seed=self.seed)(x)

    def __str__(self) -> str:
        return f"a pattern of {self.cells} x {self.cells} colors blended in"


@final
class BlendScan(TriggerScan):
    """Outlier score of the classes by their mean log odds under blends."""

    name = "blend-scan"
    title = "class to which blended images lead"
    cost = Cost(1_150)
    samples = 32

    def triggers(self, clean: Split) -> Sequence[CandidateTrigger]:
        """Return the last clean images, smooth patterns, and plain grays."""
        images = [BlendedImage(image) for image in clean.x[-BLENDED_SAMPLES:]]
        grid = itertools.product((4, 8), range(PATTERNS_PER_SIZE))
        patterns = [BlendedPattern(cells, SEED + number) for cells, number in grid]
        grays = [BlendedImage(torch.full_like(clean.x[0], level)) for level in (0.0, 0.5, 1.0)]
        return [*images, *patterns, *grays]
