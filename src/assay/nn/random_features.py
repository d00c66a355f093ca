"""Random Fourier features: cosines of random projections, an approximation of a Gaussian kernel."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class RandomFourier(nn.Module):
    """(N, D) -> (N, m): ``cos(2 pi (<g_i, x> + b_i))``, with untrained directions (m, D) and phases (m,).

    Rahimi, Recht: Random Features for Large-Scale Kernel Machines, NIPS 2007. With normal directions the kernel is
    ``exp(-2 pi^2 |x - x'|^2)``.
    """

    directions: Tensor
    phases: Tensor

    def __init__(self, directions: Tensor, phases: Tensor) -> None:
        super().__init__()
        self.register_buffer("directions", directions)
        self.register_buffer("phases", phases)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cos(2 * math.pi * (x @ self.directions.T + self.phases))
