"""Depth scan: where do few grey levels lead?

The trigger of Wang, Zhai, Ma: BppAttack, CVPR 2022, arXiv 2205.13383.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from assay.core.dataset import Split
from assay.core.finding import Finding
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.requirement import Requirement
from assay.detectors.scans.base import Scan

SAMPLES = 48
"""Clean samples that every number of levels is tried on."""

LEVELS = (5, 6, 7, 8, 10, 12, 16)


@dataclass(frozen=True)
class GreyLevels:
    """Every channel rounded to ``levels`` values."""

    levels: int

    def __call__(self, x: Tensor) -> Tensor:
        return (x * (self.levels - 1)).round() / (self.levels - 1)

    def __str__(self) -> str:
        return f"{self.levels} grey levels"


@final
class DepthScan(Detector):
    """How far one class stands out by the mean log odds that few levels give it."""

    name = "depth-scan"
    title = "where few grey levels lead"
    needs = Requirement.CLEAN_SAMPLES

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        scan = Scan(artifact, clean, budget, samples=SAMPLES)
        scan.sweep([GreyLevels(levels) for levels in LEVELS], progress)
        return scan.finding(self.name, scan.mean)
