"""Noise scan: independent noise on every pixel.

Zhong, Liao, Squicciarini, Zhu, Miller: Backdoor Embedding in Convolutional Neural Network Models via
Invisible Perturbation, CODASPY 2020, arXiv 2003.03151. Noise blends: Chen et al., 2017, arXiv 1712.05526. Noise leads
clean models to one class too; the null distribution accounts for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from assay.core.dataset import Split
from assay.detectors.cost import Cost
from assay.detectors.scans.base import CandidateTrigger, TriggerScan

SEED = 20_171_215  # of the first noise; no attack of assay uses it by default
STRENGTHS = (4 / 255, 8 / 255, 16 / 255, 32 / 255)  # standard deviations, for images in [0, 1]


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
class NoiseScan(TriggerScan):
    """Outlier score of the classes by their mean log odds under noise."""

    name = "noise-scan"
    title = "class to which noise leads"
    cost = Cost(550)
    samples = 48

    def triggers(self, clean: Split) -> Sequence[CandidateTrigger]:
        """Return two noises of each strength."""
        return [Noise(strength, SEED + number) for number, strength in enumerate((*STRENGTHS, *STRENGTHS))]
