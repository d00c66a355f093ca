"""Noise scan: where does noise lead that is different on every pixel?

The triggers of Zhong, Liao, Squicciarini, Zhu, Miller: Backdoor Embedding in Convolutional Neural Network Models via
Invisible Perturbation, CODASPY 2020, arXiv 2003.03151, and noise blends (Chen et al., 2017, arXiv 1712.05526). Clean
nets have a class for noise too: the null knows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from assay.core.dataset import Split
from assay.core.finding import Finding
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.requirement import Requirement
from assay.detectors.scans.base import Scan, Tried
from assay.detectors.scans.blend import SEED

SAMPLES = 48
"""Clean samples that every noise is tried on."""

STRENGTHS = (4 / 255, 8 / 255, 16 / 255, 32 / 255)
"""Standard deviations, in [0, 1] units."""


@dataclass(frozen=True)
class Noise:
    """Fixed Gaussian noise of standard deviation ``strength``."""

    strength: float
    seed: int

    def __call__(self, x: Tensor) -> Tensor:
        noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(self.seed))
        return (x + self.strength * noise.to(x)).clamp(0, 1)

    def __str__(self) -> str:
        return f"noise of {round(255 * self.strength)}/255"


@final
class NoiseScan(Detector):
    """How far one class stands out by the mean log odds that noise gives it."""

    name = "noise-scan"
    title = "where noise leads"
    needs = Requirement.CLEAN_SAMPLES

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        scan = Scan(artifact, clean, budget, samples=SAMPLES)
        scan.sweep(list(noises()), progress)
        return scan.finding(self.name, scan.mean)


def noises() -> Iterable[Tried]:
    """Two of every strength."""
    for number, strength in enumerate((*STRENGTHS, *STRENGTHS)):
        yield Noise(strength, SEED + number)
