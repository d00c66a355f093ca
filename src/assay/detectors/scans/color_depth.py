"""Depth scan: images with reduced color depth.

The scan looks for the trigger of Wang, Zhai, Ma: BppAttack, CVPR 2022, arXiv 2205.13383.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor

from assay.core.dataset import Split
from assay.detectors.cost import Cost
from assay.detectors.scans.base import CandidateTrigger, TriggerScan

LEVELS = (5, 6, 7, 8, 10, 12, 16)  # per channel


@dataclass(frozen=True)
class ReducedColorDepth:
    """Every channel rounded to ``levels`` values."""

    levels: int

    def __call__(self, x: Tensor) -> Tensor:
        return (x * (self.levels - 1)).round() / (self.levels - 1)

    def __str__(self) -> str:
        return f"{self.levels} levels per channel"


@final
class DepthScan(TriggerScan):
    """Outlier score of the classes by their mean log odds under reduced color depth."""

    name = "depth-scan"
    title = "class to which a reduced color depth leads"
    cost = Cost(500)
    samples = 48

    def triggers(self, clean: Split) -> Sequence[CandidateTrigger]:
        return [ReducedColorDepth(levels) for levels in LEVELS]
