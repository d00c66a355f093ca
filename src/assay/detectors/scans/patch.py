"""Patch scan: plain patches tried everywhere.

The patches are those of Gu, Dolan-Gavitt, Garg (BadNets, 2017, arXiv 1708.06733); the sweep is that of occlusion maps
(Zeiler, Fergus, 2014, arXiv 1311.2901), with another question: not where the model looks, but where it can be told what
to say.
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
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.requirement import Requirement
from assay.detectors.scans.base import Scan

SAMPLES = 8
"""Clean samples that every patch is tried on."""

COARSE = 5
"""Side of the patches of the first sweep, in 32nds of the picture's; neighbours overlap by a fifth."""

FINE = (2, 3, 4)
"""Sides of the patches of the second sweep, around the best place of each candidate class."""

CANDIDATES = 5
"""Classes that the second sweep follows."""

Fill = tuple[float, ...] | Literal["checker"]  # red, green, blue in [0, 1], or squares

FILLS: tuple[Fill, ...] = (*itertools.product((0.0, 1.0), repeat=3), "checker")
"""The corners of the colour cube, and black and white squares."""


@dataclass(frozen=True)
class Plain:
    """A square patch in one fill; all in pixels."""

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
            color = color.mean().expand(x.shape[1])  # a grey picture
        return color[:, None, None].to(x)

    def __str__(self) -> str:
        fill = self.fill if isinstance(self.fill, str) else "#" + "".join(f"{round(255 * v):02x}" for v in self.fill)
        return f"{self.side} px patch, {fill}, row {self.top}, column {self.left}"


@final
class PatchScan(Detector):
    """How far one class stands out by the log odds that the best patch for it gives it."""

    name = "patch-scan"
    title = "plain patches, tried everywhere"
    needs = Requirement.CLEAN_SAMPLES

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        height, width = artifact.image_spec.shape[1:]
        scan = Scan(artifact, clean, budget, samples=SAMPLES)
        scan.sweep(list(coarse(height, width)), lambda share: progress(0.8 * share))
        candidates = [patch for patch in scan.easiest(CANDIDATES) if isinstance(patch, Plain)]
        scan.sweep(list(fine(candidates, height, width)), lambda share: progress(0.8 + 0.2 * share))
        return scan.finding(self.name)


def coarse(height: int, width: int) -> Iterable[Plain]:
    """Overlapping patches over all of a picture of ``height`` x ``width`` pixels, in every fill."""
    unit = min(height, width) / 32
    side = max(2, round(COARSE * unit))
    step = max(1, round((COARSE - 1) * unit))
    for top, left in itertools.product(_places(height, side, step), _places(width, side, step)):
        for fill in FILLS:
            yield Plain(top, left, side, fill)


def _places(length: int, side: int, step: int) -> list[int]:
    """Where patches start, so that none leaves the picture and the far edge is covered."""
    last = max(0, length - side)
    return sorted({*range(0, last + 1, step), last})


def fine(candidates: Sequence[Plain], height: int, width: int) -> Iterable[Plain]:
    """Smaller patches of the same fill, in and just around each of ``candidates``."""
    unit = min(height, width) / 32
    step = max(1, round(unit))
    for patch, size in itertools.product(candidates, FINE):
        side = max(1, round(size * unit))
        tops, lefts = (
            range(max(0, start - step), max(0, min(length, start + patch.side + step) - side) + 1, step)
            for start, length in ((patch.top, height), (patch.left, width))
        )
        for top, left in itertools.product(tops, lefts):
            yield Plain(top, left, side, patch.fill)
