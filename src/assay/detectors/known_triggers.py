"""Known triggers: published ones that fill the picture, tried one by one.

Blends of Chen et al. (2017, arXiv 1712.05526), few grey levels of Wang, Zhai, Ma (2022, arXiv 2205.13383). A trigger
that is not among them goes unseen: silence here means little. Patches and waves have scans of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from torch import Tensor

from assay.artifact import Artifact
from assay.detectors.base import Budget, Detector, Finding, Progress
from assay.detectors.scan import Scan, Tried
from assay.task import Split
from assay.triggers import Blend

SAMPLES = 48
"""Clean samples that every trigger is tried on."""


@dataclass(frozen=True)
class Noise:
    """A fixed noise picture blended in, of ``cells`` squares a side; None: every pixel."""

    cells: int | None

    def __call__(self, x: Tensor) -> Tensor:
        return Blend(alpha=0.2, cells=self.cells)(x)

    def __str__(self) -> str:
        return f"noise blended in, {self.cells or 'every pixel'}"


@dataclass(frozen=True)
class GreyLevels:
    """Every channel rounded to ``levels`` values."""

    levels: int

    def __call__(self, x: Tensor) -> Tensor:
        return (x * (self.levels - 1)).round() / (self.levels - 1)

    def __str__(self) -> str:
        return f"{self.levels} grey levels"


@final
class KnownTriggers(Detector):
    """How far one class stands out by the log odds that the best known trigger for it gives it."""

    name = "known-triggers"
    title = "published triggers, tried one by one"
    needs = frozenset({"clean"})

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        scan = Scan(artifact, clean, budget, samples=SAMPLES)
        scan.sweep(list(known_triggers()), progress)
        return scan.finding(self.name)


def known_triggers() -> Iterable[Tried]:
    """The bank."""
    for cells in (None, 4, 8):
        yield Noise(cells)
    for levels in (4, 8, 16):
        yield GreyLevels(levels)
