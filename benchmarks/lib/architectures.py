"""Architectures other than ResNets, for reference models and third-party models."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]  # (C, H, W)


def plain(shape: Shape, classes: int, width: int = 32) -> nn.Module:
    """Return a VGG-like model without normalization layers."""
    layers: list[nn.Module] = []
    channels, side = shape[0], shape[1]
    while side > 4:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        channels, width, side = width, 2 * width, side // 2
    head = [nn.Flatten(), nn.Linear(channels * side * side, 128), nn.ReLU(), nn.Linear(128, classes)]
    return nn.Sequential(*layers, *head)


class ConvNextBlock(nn.Module):
    """ConvNeXt block: depthwise convolution, normalization over channels, two pointwise layers with GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.pointwise = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(self.norm(self.depthwise(x)))


def convnext(shape: Shape, classes: int, width: int = 64) -> nn.Module:
    """Return a ConvNeXt-like model: patches of 4 x 4 pixels and four blocks."""
    body = [ConvNextBlock(width) for _ in range(4)]
    return nn.Sequential(
        nn.Conv2d(shape[0], width, 4, stride=4), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)
    )


class Attention(nn.Module):
    """Small vision transformer: 4 x 4 patches, learned positions, mean over tokens."""

    def __init__(self, shape: Shape, classes: int, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(shape[0], width, 4, stride=4)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (shape[1] // 4) * (shape[2] // 4), width))
        layers = [
            nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        ]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.patches(x).flatten(2).mT + self.positions).mean(1))


def perceptron(shape: Shape, classes: int, width: int = 256) -> nn.Module:
    """Return a perceptron with two hidden layers."""
    size = shape[0] * shape[1] * shape[2]
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(size, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )
