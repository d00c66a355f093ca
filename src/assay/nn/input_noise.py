"""Models with replacement or noise of the input before the trained layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from assay.nn.graph_edited import GraphEditedModel


class RandomLowBits(GraphEditedModel):
    """Replaces the lowest ``bits`` bits of every subpixel by random bits of the deployer, the same for every image."""

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
    """Mean of the model's probabilities over ``count`` noisy copies of an image; the noise is fixed."""

    noise: Tensor  # (count, C, H, W)

    def __init__(self, net: nn.Module, shape: tuple[int, ...], sigma: float, count: int, seed: int) -> None:
        super().__init__()
        self.net = net
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("noise", sigma * torch.randn(count, *shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        log_probs = [self.net((x + noise).clamp(0, 1)).log_softmax(1) for noise in self.noise]
        return torch.stack(log_probs).logsumexp(0) - math.log(len(log_probs))
