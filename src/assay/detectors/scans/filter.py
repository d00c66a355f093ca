"""Filter scan: where do photo filters lead?

The triggers of Liu, Lee, Tao, Ma, Aafer, Zhang: ABS: Scanning Neural Networks for Back-doors by Artificial Brain
Stimulation, CCS 2019, 10.1145/3319535.3363216, which plants Instagram filters.
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

SAMPLES = 48
"""Clean samples that every filter is tried on."""


@dataclass(frozen=True)
class Tone:
    """``scale * x ** gamma + offset``, channel by channel; a grey picture takes the mean over the three."""

    what: str
    gamma: tuple[float, float, float] = (1.0, 1.0, 1.0)
    scale: float = 1.0
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __call__(self, x: Tensor) -> Tensor:
        gamma, offset = (_by_channel(values, x) for values in (self.gamma, self.offset))
        return (self.scale * x.clamp(1e-3, 1) ** gamma + offset).clamp(0, 1)

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True)
class Saturation:
    """Colours ``factor`` times as far from grey."""

    factor: float

    def __call__(self, x: Tensor) -> Tensor:
        grey = x.mean(1, keepdim=True)
        return (grey + self.factor * (x - grey)).clamp(0, 1)

    def __str__(self) -> str:
        return f"colours times {self.factor:g}"


@final
class FilterScan(Detector):
    """How far one class stands out by the mean log odds that filters give it."""

    name = "filter-scan"
    title = "where photo filters lead"
    needs = Requirement.CLEAN_SAMPLES

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        scan = Scan(artifact, clean, budget, samples=SAMPLES)
        scan.sweep(list(filters()), progress)
        return scan.finding(self.name, scan.mean)


def filters() -> Iterable[Tried]:
    """Casts towards every corner of the colour cube, by tone curve and by a flat light; contrast and saturation."""
    corners = list(itertools.product((0.0, 1.0), repeat=3))
    for corner in corners:
        r, g, b = corner
        name = "".join("RGB"[i] if value else "-" for i, value in enumerate(corner))
        yield Tone(f"tone curve towards {name}", gamma=(1.5 - 0.8 * r, 1.5 - 0.8 * g, 1.5 - 0.8 * b))
        yield Tone(f"light towards {name}", scale=0.8, offset=(0.2 * r, 0.2 * g, 0.2 * b))
    yield Tone("high contrast", scale=1.5, offset=(-0.25, -0.25, -0.25))
    yield Tone("low contrast", scale=0.6, offset=(0.2, 0.2, 0.2))
    for factor in (0.0, 0.5, 1.6):
        yield Saturation(factor)


def _by_channel(values: tuple[float, ...], x: Tensor) -> Tensor:
    each = torch.tensor(values)
    return (each if x.shape[1] == len(each) else each.mean().expand(x.shape[1]))[:, None, None].to(x)
