"""Blend trigger: one fixed pattern blended into the whole image.

Chen, Liu, Li, Lu, Song: Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning, 2017,
arXiv 1712.05526.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.core.errors import UnusableInput

MAX_CELLS = 4096  # of one side


@dataclass(frozen=True, kw_only=True)
class Blend:
    """``(1 - alpha) x + alpha pattern``; the pattern is seeded noise on a grid of ``cells`` x ``cells``.

    With ``cells`` None, all pixels are independent. Few cells give a smooth, colored pattern.
    """

    alpha: float = 0.2  # in (0, 1)
    cells: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise UnusableInput(f"expected alpha, the weight of the pattern, in (0, 1), got {self.alpha}")
        if self.cells is not None and not (isinstance(self.cells, int) and 1 <= self.cells <= MAX_CELLS):
            raise UnusableInput(f"expected cells as a whole number from 1 to {MAX_CELLS}, or none, got {self.cells}")

    def __call__(self, x: Tensor) -> Tensor:
        """Blend the pattern into images (N, C, H, W) in [0, 1]."""
        return (1 - self.alpha) * x + self.alpha * self.pattern(x.shape[1], x.shape[2], x.shape[3]).to(x)

    def pattern(self, channels: int, height: int, width: int) -> Tensor:
        """Return the pattern (C, H, W) in [0, 1] for images of this size."""
        generator = torch.Generator().manual_seed(self.seed)
        if self.cells is None:
            return torch.rand(channels, height, width, generator=generator)
        grid = torch.rand(1, channels, self.cells, self.cells, generator=generator)
        return F.interpolate(grid, (height, width), mode="bicubic", align_corners=True)[0].clamp(0, 1)
