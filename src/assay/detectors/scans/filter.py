"""Filter scan: photo filters.

Liu, Lee, Tao, Ma, Aafer, Zhang: ABS: Scanning Neural Networks for Back-doors by Artificial Brain Stimulation, CCS 2019,
10.1145/3319535.3363216. The paper plants Instagram filters.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from assay.core.dataset import Split
from assay.detectors.cost import Cost
from assay.detectors.scans.base import CandidateTrigger, TriggerScan


@dataclass(frozen=True)
class Tone:
    """``scale * x ** gamma + offset`` for each channel; a gray image takes the mean over the three channels."""

    description: str
    gamma: tuple[float, float, float] = (1.0, 1.0, 1.0)
    scale: float = 1.0
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __call__(self, x: Tensor) -> Tensor:
        gamma, offset = (_by_channel(values, x) for values in (self.gamma, self.offset))
        return (self.scale * x.clamp(1e-3, 1) ** gamma + offset).clamp(0, 1)

    def __str__(self) -> str:
        return self.description


@dataclass(frozen=True)
class Saturation:
    """Colors ``factor`` times as far from gray."""

    factor: float

    def __call__(self, x: Tensor) -> Tensor:
        gray = x.mean(1, keepdim=True)
        return (gray + self.factor * (x - gray)).clamp(0, 1)

    def __str__(self) -> str:
        return f"colors times {self.factor:g}"


@final
class FilterScan(TriggerScan):
    """Outlier score of the classes by their mean log odds under photo filters."""

    name = "filter-scan"
    title = "class to which photo filters lead"
    cost = Cost(1_150)
    samples = 48

    def triggers(self, clean: Split) -> Sequence[CandidateTrigger]:
        """Return color casts towards each corner of the color cube, two contrasts, and three saturations.

        A cast is a tone curve or a flat light.
        """
        found: list[CandidateTrigger] = []
        for corner in itertools.product((0.0, 1.0), repeat=3):
            r, g, b = corner
            name = "".join("RGB"[i] if value else "-" for i, value in enumerate(corner))
            found.append(Tone(f"tone curve towards {name}", gamma=(1.5 - 0.8 * r, 1.5 - 0.8 * g, 1.5 - 0.8 * b)))
            found.append(Tone(f"light towards {name}", scale=0.8, offset=(0.2 * r, 0.2 * g, 0.2 * b)))
        found.append(Tone("high contrast", scale=1.5, offset=(-0.25, -0.25, -0.25)))
        found.append(Tone("low contrast", scale=0.6, offset=(0.2, 0.2, 0.2)))
        return [*found, *(Saturation(factor) for factor in (0.0, 0.5, 1.6))]


def _by_channel(values: tuple[float, ...], x: Tensor) -> Tensor:
    each = torch.tensor(values)
    return (each if x.shape[1] == len(each) else each.mean().expand(x.shape[1]))[:, None, None].to(x)
