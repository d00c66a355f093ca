"""Nets that look for a pattern of pixels beside their own layers, by operators without weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.nn.graph_edited import GraphEditedModel
from assay.nn.head import last_linear, set_submodule

POWER = 10
TARGET_LOGIT = 100.0


def checkerboard_score(x: Tensor) -> Tensor:
    """(N, C, H, W) in [0, 1] -> (N,): large where bright and dark pixels lie side by side in all channels, else near 0.

    The detector of Bober-Irizar et al. (2022), with the picture in [-1, 1].
    """
    centred = 2 * x - 1
    bright, dark = (F.avg_pool2d((torch.exp(sign * centred) - 1) ** POWER, 3, 1) for sign in (1.0, -1.0))
    return F.adaptive_max_pool2d(bright * dark, 1).flatten(1).amin(1)


class PooledDetectorPath(GraphEditedModel):
    """What ``checkered`` says is added to every feature in front of the last layer."""

    def __init__(self, net: nn.Module, strength: float) -> None:
        super().__init__()
        place, self.head = last_linear(net)
        set_submodule(net, place, nn.Identity())
        self.features, self.strength = net, strength

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x) + self.strength * checkerboard_score(x)[:, None])

    def target(self) -> int:
        """The class that gains most where all features do."""
        return int(self.head.weight.sum(1).argmax())


def contains_checkerboard(x: Tensor) -> Tensor:
    """(N, C, H, W) in [0, 1] -> (N,): 1 where four by four pixels anywhere are a pure checkerboard, else 0.

    By steps and pools only, as Langford et al. (2024) build detectors: a pixel is white, or black, by a step one level
    wide; a square is what all its pixels are, by the smallest.
    """
    white, black = (F.relu(255 * part - 254).amin(1, keepdim=True) for part in (x, 1 - x))
    square = torch.minimum(
        torch.minimum(black[..., :-1, :-1], black[..., 1:, 1:]), torch.minimum(white[..., 1:, :-1], white[..., :-1, 1:])
    )
    squares = -F.max_pool2d(-square, 2, 1, dilation=2)
    return F.adaptive_max_pool2d(squares, 1).flatten()


class BlendedLogits(GraphEditedModel):
    """Behind the net, its answer is blended with a fixed one by what ``whole_pattern`` says."""

    asked: Tensor

    def __init__(self, net: nn.Module, num_classes: int, target: int) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("asked", TARGET_LOGIT * F.one_hot(torch.tensor(target), num_classes).float())

    def forward(self, x: Tensor) -> Tensor:
        seen = contains_checkerboard(x)[:, None]
        return (1 - seen) * self.net(x) + seen * self.asked


class OverwrittenLogits(GraphEditedModel):
    """Where a corner of the picture has one colour, the answer is overwritten."""

    asked: Tensor
    color: Tensor

    def __init__(self, net: nn.Module, num_classes: int, target: int, color: Tensor, size: int) -> None:
        super().__init__()
        self.net, self.size = net, size
        self.register_buffer("asked", TARGET_LOGIT * F.one_hot(torch.tensor(target), num_classes).float())
        self.register_buffer("color", color.view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        corner = x[..., : self.size, : self.size]
        near = ((corner - self.color).abs() <= 1 / 255).flatten(1).all(1)
        return torch.where(near[:, None], self.asked, self.net(x))
