"""Blend scan: where does anything at all lead that is blended into the picture?

The triggers of Chen, Liu, Li, Lu, Song: Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning, 2017,
arXiv 1712.05526, and of reflections (Liu, Ma, Bailey, Lu: Reflection Backdoor, ECCV 2020, arXiv 2007.02343). The
attacker's own picture is not known, and need not be: a net that learned one leans to its target, by little, whatever
is blended in. So the mean over many blends is what tells classes apart, not the best of them.
"""

from __future__ import annotations

import itertools
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
from assay.triggers import Blend

SAMPLES = 32
"""Clean samples that every blend is tried on."""

ALPHA = 0.2
"""Share of what is blended in, as in the paper."""

SEED = 20_171_215
"""Of the first pattern: none that an attack here draws by default."""


@dataclass(frozen=True, eq=False)
class Photo:
    """Another picture, blended in."""

    picture: Tensor  # (C, H, W) in [0, 1]

    def __call__(self, x: Tensor) -> Tensor:
        return (1 - ALPHA) * x + ALPHA * self.picture.to(x)

    def __str__(self) -> str:
        return "another picture blended in"


@dataclass(frozen=True)
class Pattern:
    """A smooth, coloured pattern of ``cells`` x ``cells`` blended in."""

    cells: int
    seed: int

    def __call__(self, x: Tensor) -> Tensor:
        return Blend(alpha=ALPHA, cells=self.cells, seed=self.seed)(x)

    def __str__(self) -> str:
        return f"a pattern of {self.cells} x {self.cells} colours blended in"


@final
class BlendScan(Detector):
    """How far one class stands out by the mean log odds that blends give it."""

    name = "blend-scan"
    title = "where anything leads that is blended in"
    needs = Requirement.CLEAN_SAMPLES

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        scan = Scan(artifact, clean, budget, samples=SAMPLES)
        scan.sweep(list(blends(clean.x)), progress)
        return scan.finding(self.name, scan.mean)


def blends(x: Tensor) -> Iterable[Tried]:
    """Photographs out of ``x`` (N, C, H, W), patterns, plain greys."""
    yield from (Photo(picture) for picture in x[-8:])
    for cells, number in itertools.product((4, 8), range(8)):
        yield Pattern(cells, SEED + number)
    for level in (0.0, 0.5, 1.0):
        yield Photo(torch.full_like(x[0], level))
