"""Wave scan: weak plane waves of many frequencies.

Barni, Kallas, Tondi: A New Backdoor Attack in CNNs by Training Set Corruption Without Label Poisoning, ICIP
2019, arXiv 1902.11237. The scan covers rows, columns and diagonals.
"""

from __future__ import annotations

import itertools
import math
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
from assay.detectors.cost import Cost
from assay.detectors.requirement import Requirement
from assay.detectors.scans.base import Scan
from assay.detectors.scans.race import Race, Round

SAMPLES = 10  # clean samples for each wave
AMPLITUDE = 20 / 255  # for images in [0, 1], as in the paper
MAX_PERIODS = 16  # in an image: half of its pixels if it has 32
DIAGONAL_PERIODS = (2, 4, 6, 8, 10, 12, 14)  # along each side, for diagonal waves
# Rounds of the race; benchmarks/results/racing.json compares it with a full scan.
RACE = (
    Round(samples=1),
    Round(samples=2, triggers=24, classes=16),
    Round(samples=4, triggers=16, classes=16),
    Round(samples=SAMPLES, triggers=6, classes=8),
)


@dataclass(frozen=True)
class Wave:
    """A gray sinusoid: periods in the image's height and width, and its phase in periods."""

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
    """Outlier score of the classes by their log odds under the best wave.

    Args:
        rounds: Rounds of the race of all waves.
    """

    name = "wave-scan"
    title = "class to which a weak plane wave leads"
    cost = Cost(900)
    needs = Requirement.CLEAN_SAMPLES

    def __init__(self, *, rounds: Race = RACE) -> None:
        self.rounds = rounds

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        scan = Scan(artifact, clean, budget, samples=SAMPLES)
        scan.race(waves(), self.rounds, progress)
        return scan.finding(self.name, scan.best_odds)


def waves() -> list[Wave]:
    """Return every period along the sides with four phases, and every other diagonal period with two.

    The phases lie between pixels: at 16 periods in 32 pixels, a sine with phase 0 is 0 on all of them.
    """
    found = []
    for periods, phase in itertools.product(range(1, MAX_PERIODS + 1), (0.125, 0.375, 0.625, 0.875)):
        found += [Wave(0, periods, phase), Wave(periods, 0, phase)]
    diagonal = itertools.product(DIAGONAL_PERIODS, DIAGONAL_PERIODS, (1, -1), (0.125, 0.625))
    return [*found, *(Wave(down, sign * across, phase) for down, across, sign, phase in diagonal)]
