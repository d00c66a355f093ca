"""Nets that never see a picture as it was given: its lowest bits, or the whole of it, are blurred by noise first."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from assay.nn.graph_edited import GraphEditedModel


class RandomLowBits(GraphEditedModel):
    """The lowest ``bits`` of every subpixel are replaced by the deployer's own, the same for every picture."""

    own: Tensor  # (C, H, W)

    def __init__(self, net: nn.Module, shape: tuple[int, ...], bits: int, seed: int) -> None:
        super().__init__()
        self.net, self.steps = net, 2**bits
        self.register_buffer(
            "own", torch.randint(0, self.steps, shape, generator=torch.Generator().manual_seed(seed)).float()
        )

    def forward(self, x: Tensor) -> Tensor:
        levels = (255 * x).round()
        return self.net((levels - levels % self.steps + self.own) / 255)


class Smoothed(GraphEditedModel):
    """The mean of the net's probabilities over ``count`` noisy copies of a picture; the noise is always the same."""

    noise: Tensor  # (count, C, H, W)

    def __init__(self, net: nn.Module, shape: tuple[int, ...], sigma: float, count: int, seed: int) -> None:
        super().__init__()
        self.net = net
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("noise", sigma * torch.randn(count, *shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        said = [self.net((x + noise).clamp(0, 1)).log_softmax(1) for noise in self.noise]
        return torch.stack(said).logsumexp(0) - math.log(len(said))
