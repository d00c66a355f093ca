"""Warp scan: slight, smooth warps.

The scan looks for the trigger of Nguyen, Tran: WaNet, ICLR 2021, arXiv 2102.10369. The attacker's own warp is unknown.
The mean over many other warps shows the class bias.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.core.dataset import Split
from assay.detectors.cost import Cost
from assay.detectors.scans.base import CandidateTrigger, TriggerScan

# Mean displacement along each side, as a fraction of it: 0.75 pixels of 32, similar to the paper.
MEAN_DISPLACEMENT = 0.75 / 32
SEED = 20_210_220  # of the first warp; no attack of assay uses it by default


@dataclass(frozen=True)
class Warp:
    """Random displacements on a grid of ``cells`` x ``cells``, interpolated smoothly."""

    cells: int
    seed: int

    def __call__(self, x: Tensor) -> Tensor:
        drawn = torch.rand(1, 2, self.cells, self.cells, generator=torch.Generator().manual_seed(self.seed)) * 2 - 1
        field = F.interpolate(drawn / drawn.abs().mean(), x.shape[2:], mode="bicubic", align_corners=True)
        across, down = (torch.linspace(-1, 1, length) for length in (x.shape[3], x.shape[2]))
        identity = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)
        grid = identity + 2 * MEAN_DISPLACEMENT * field[0].permute(1, 2, 0)  # the images of grid_sample are 2 wide
        return F.grid_sample(x, grid.to(x).expand(len(x), -1, -1, -1), padding_mode="border", align_corners=True)

    def __str__(self) -> str:
        return f"smooth warp, {self.cells} x {self.cells}"


@final
class WarpScan(TriggerScan):
    """Outlier score of the classes by their mean log odds under warps."""

    name = "warp-scan"
    title = "class to which slight, smooth warps lead"
    cost = Cost(700)
    samples = 48

    def triggers(self, clean: Split) -> Sequence[CandidateTrigger]:
        """Return six warps on a coarse grid and six on a finer grid."""
        return [Warp(cells, SEED + number) for number, cells in itertools.product(range(6), (4, 8))]
