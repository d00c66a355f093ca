"""Warp scan: where do slight, smooth warps lead?

The trigger of Nguyen, Tran: WaNet, ICLR 2021, arXiv 2102.10369. The attacker's own warp is not known: the mean over
many others shows where the net leans.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
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
"""Clean samples that every warp is tried on."""

REACH = 0.75 / 32
"""Mean displacement along each side, in shares of it: half a pixel and more at 32, as in the paper."""

SEED = 20_210_220
"""Of the first warp: none that an attack here draws by default."""


@dataclass(frozen=True)
class Warp:
    """Displacements on a grid of ``cells`` x ``cells``, drawn by ``seed``, smooth in between."""

    cells: int
    seed: int

    def __call__(self, x: Tensor) -> Tensor:
        drawn = torch.rand(1, 2, self.cells, self.cells, generator=torch.Generator().manual_seed(self.seed)) * 2 - 1
        field = F.interpolate(drawn / drawn.abs().mean(), x.shape[2:], mode="bicubic", align_corners=True)
        across, down = (torch.linspace(-1, 1, length) for length in (x.shape[3], x.shape[2]))
        identity = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)
        grid = identity + 2 * REACH * field[0].permute(1, 2, 0)  # grid_sample's pictures are 2 wide
        return F.grid_sample(x, grid.to(x).expand(len(x), -1, -1, -1), padding_mode="border", align_corners=True)

    def __str__(self) -> str:
        return f"smooth warp, {self.cells} x {self.cells}"


@final
class WarpScan(Detector):
    """How far one class stands out by the mean log odds that warps give it."""

    name = "warp-scan"
    title = "where slight, smooth warps lead"
    needs = Requirement.CLEAN_SAMPLES

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        scan = Scan(artifact, clean, budget, samples=SAMPLES)
        scan.sweep(list(warps()), progress)
        return scan.finding(self.name, scan.mean)


def warps() -> Iterable[Tried]:
    """Six on a coarse grid, six on a finer one."""
    for number, cells in itertools.product(range(6), (4, 8)):
        yield Warp(cells, SEED + number)
