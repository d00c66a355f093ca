"""Wave scan: weak plane waves tried at many frequencies.

The trigger of Barni, Kallas, Tondi: A New Backdoor Attack in CNNs by Training Set Corruption Without Label Poisoning,
ICIP 2019, arXiv 1902.11237, along rows, columns and diagonals.
"""

from __future__ import annotations

import itertools
import math
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
from assay.detectors.scans.base import Scan

SAMPLES = 10
"""Clean samples that every wave is tried on."""

AMPLITUDE = 20 / 255
"""In [0, 1] units, as in the paper."""

HIGHEST = 16
"""Most periods in a picture: half of its pixels where it has 32."""

SLANTED = (2, 4, 6, 8, 10, 12, 14)
"""Periods along each side, for waves along neither."""


@dataclass(frozen=True)
class Wave:
    """A grey sinusoid: periods in the picture's height and width, and where it starts, in periods."""

    down: int
    across: int
    phase: float

    def __call__(self, x: Tensor) -> Tensor:
        row = torch.arange(x.shape[2])[:, None] / x.shape[2]
        column = torch.arange(x.shape[3]) / x.shape[3]
        wave = torch.sin(2 * math.pi * (self.down * row + self.across * column + self.phase))
        return (x + AMPLITUDE * wave.to(x)).clamp(0, 1)

    def __str__(self) -> str:
        return f"sinusoid, {self.across} periods across, {self.down} down, phase {self.phase:g}"


@final
class WaveScan(Detector):
    """How far one class stands out by the log odds that the best wave for it gives it."""

    name = "wave-scan"
    title = "weak plane waves, tried at many frequencies"
    needs = Requirement.CLEAN_SAMPLES

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        scan = Scan(artifact, clean, budget, samples=SAMPLES)
        scan.sweep(list(waves()), progress)
        return scan.finding(self.name)


def waves() -> Iterable[Wave]:
    """Every period along the sides with four phases, every other one aslant with two.

    The phases lie off the pixels: at 16 periods in 32 pixels a sine that starts at 0 is 0 on all of them.
    """
    for periods, phase in itertools.product(range(1, HIGHEST + 1), (0.125, 0.375, 0.625, 0.875)):
        yield Wave(0, periods, phase)
        yield Wave(periods, 0, phase)
    for down, across, sign, phase in itertools.product(SLANTED, SLANTED, (1, -1), (0.125, 0.625)):
        yield Wave(down, sign * across, phase)
