"""Patch scan: solid and checkered patches at many positions.

The patches are those of Gu, Dolan-Gavitt, Garg (BadNets, 2017, arXiv 1708.06733). The sweep over positions follows
occlusion maps (Zeiler, Fergus, 2014, arXiv 1311.2901). The scan measures where a patch changes the prediction, and not
where the model gets its information.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from assay.core.dataset import Split
from assay.core.finding import Finding
from assay.core.model import Artifact
from assay.core.progress import Progress, part
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.cost import Cost
from assay.detectors.requirement import Requirement
from assay.detectors.scans.base import Scan
from assay.detectors.scans.race import Race, Round

SAMPLES = 8  # clean samples for each patch
COARSE_SIDE = 5  # of the first sweep's patches, in 32nds of the image side; neighbors overlap by a fifth
FINE_SIDES = (2, 3, 4)  # of the second sweep's patches, around the best position for each candidate class
MAX_CANDIDATES = 5  # classes in the second sweep
COARSE_FRACTION = 0.7  # of the progress, for the first sweep

# Rounds of both sweeps; benchmarks/results/racing.json compares them with full scans.
COARSE_RACE = (
    Round(samples=1),
    Round(samples=2, triggers=24, classes=16),
    Round(samples=4, triggers=16, classes=16),
    Round(samples=6, triggers=8, classes=10),
    Round(samples=SAMPLES, triggers=4, classes=6),
)
FINE_RACE = (
    Round(samples=1),
    Round(samples=2, triggers=8, classes=5),
    Round(samples=4, triggers=4, classes=5),
    Round(samples=SAMPLES, triggers=2, classes=5),
)

Fill = tuple[float, ...] | Literal["checker"]  # red, green, blue in [0, 1]; or black and white squares

# The corners of the color cube, and a checkerboard.
FILLS: tuple[Fill, ...] = (*itertools.product((0.0, 1.0), repeat=3), "checker")


@dataclass(frozen=True)
class SolidPatch:
    """A square patch with one fill; all lengths in pixels."""

    top: int
    left: int
    side: int
    fill: Fill

    def __call__(self, x: Tensor) -> Tensor:
        out = x.clone()
        out[:, :, self.top : self.top + self.side, self.left : self.left + self.side] = self._pattern(x)
        return out

    def _pattern(self, x: Tensor) -> Tensor:
        if isinstance(self.fill, str):
            square = torch.arange(self.side) // max(1, min(x.shape[2:]) // 32)
            return ((square[:, None] + square) % 2).to(x)
        color = torch.tensor(self.fill)
        if x.shape[1] != len(color):
            color = color.mean().expand(x.shape[1])  # a gray image
        return color[:, None, None].to(x)

    def __str__(self) -> str:
        fill = self.fill if isinstance(self.fill, str) else "#" + "".join(f"{round(255 * v):02x}" for v in self.fill)
        return f"{self.side} px patch, {fill}, row {self.top}, column {self.left}"


@final
class PatchScan(Detector):
    """Outlier score of the classes by their log odds under the best patch.

    Args:
        coarse: Rounds of the first sweep, over the whole image.
        fine: Rounds of the second sweep, around the best patches.
    """

    name = "patch-scan"
    title = "class to which a solid patch leads"
    cost = Cost(1_700)
    needs = Requirement.CLEAN_SAMPLES

    def __init__(self, *, coarse: Race = COARSE_RACE, fine: Race = FINE_RACE) -> None:
        self.coarse, self.fine = coarse, fine

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        height, width = artifact.image_spec.shape[1:]
        scan = Scan(artifact, clean, budget, samples=SAMPLES)
        scan.race(list(coarse_patches(height, width)), self.coarse, part(progress, 0.0, COARSE_FRACTION))
        candidates = [patch for patch in scan.best_triggers(MAX_CANDIDATES) if isinstance(patch, SolidPatch)]
        scan.race(list(fine_patches(candidates, height, width)), self.fine, part(progress, COARSE_FRACTION, 1.0))
        return scan.finding(self.name, scan.best_odds)


def coarse_patches(height: int, width: int) -> Iterable[SolidPatch]:
    """Yield overlapping patches over an image of ``height`` x ``width`` pixels, with every fill."""
    unit = min(height, width) / 32
    side = max(2, round(COARSE_SIDE * unit))
    step = max(1, round((COARSE_SIDE - 1) * unit))
    for top, left in itertools.product(_positions(height, side, step), _positions(width, side, step)):
        for fill in FILLS:
            yield SolidPatch(top, left, side, fill)


def _positions(length: int, side: int, step: int) -> list[int]:
    """Return the first pixels of patches along one image side, up to the far edge and not beyond it."""
    last = max(0, length - side)
    return sorted({*range(0, last + 1, step), last})


def fine_patches(candidates: Sequence[SolidPatch], height: int, width: int) -> Iterable[SolidPatch]:
    """Yield smaller patches with the same fill, in and around each candidate.

    Args:
        candidates: Patches of the first sweep.
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.
    """
    unit = min(height, width) / 32
    step = max(1, round(unit))
    for patch, size in itertools.product(candidates, FINE_SIDES):
        side = max(1, round(size * unit))
        tops, lefts = (
            range(max(0, start - step), max(0, min(length, start + patch.side + step) - side) + 1, step)
            for start, length in ((patch.top, height), (patch.left, width))
        )
        for top, left in itertools.product(tops, lefts):
            yield SolidPatch(top, left, side, patch.fill)
