"""Models with a pixel-pattern detector of weightless operators in parallel to the trained layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.nn.graph_edited import GraphEditedModel
from assay.nn.head import last_linear, set_submodule

POWER = 10  # exponent of the pooled detector: suppresses weak matches
TARGET_LOGIT = 100.0  # logit of the attacker's class


def checkerboard_score(x: Tensor) -> Tensor:
    """Score images by adjacent bright and dark pixels.

    The detector of Bober-Irizar et al. (2022), with the image in [-1, 1].

    Args:
        x: (N, C, H, W) images in [0, 1].

    Returns:
        (N,) scores: large for bright pixels next to dark ones in all channels, else near 0.
    """
    centered = 2 * x - 1
    bright, dark = (F.avg_pool2d((torch.exp(sign * centered) - 1) ** POWER, 3, 1) for sign in (1.0, -1.0))
    return F.adaptive_max_pool2d(bright * dark, 1).flatten(1).amin(1)


class PooledDetectorPath(GraphEditedModel):
    """Adds ``checkerboard_score`` to every feature before the last layer."""

    def __init__(self, net: nn.Module, strength: float) -> None:
        super().__init__()
        name, self.head = last_linear(net)
        set_submodule(net, name, nn.Identity())
        self.features, self.strength = net, strength

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x) + self.strength * checkerboard_score(x)[:, None])

    def target(self) -> int:
        """Return the class with the largest gain if all features grow."""
        return int(self.head.weight.sum(1).argmax())


def contains_checkerboard(x: Tensor) -> Tensor:
    """Detect a pure checkerboard of 4 x 4 pixels anywhere in an image.

    Uses steps and pools only, as the detectors of Langford et al. (2024). A step one level wide classifies a pixel as
    white or black. A minimum over its pixels classifies a square.

    Args:
        x: (N, C, H, W) images in [0, 1].

    Returns:
        (N,): 1 for a match, else 0.
    """
    white, black = (F.relu(255 * part - 254).amin(1, keepdim=True) for part in (x, 1 - x))
    square = torch.minimum(
        torch.minimum(black[..., :-1, :-1], black[..., 1:, 1:]), torch.minimum(white[..., 1:, :-1], white[..., :-1, 1:])
    )
    squares = -F.max_pool2d(-square, 2, 1, dilation=2)
    return F.adaptive_max_pool2d(squares, 1).flatten()


class BlendedLogits(GraphEditedModel):
    """Blends the logits with fixed ones, weighted by ``contains_checkerboard``."""

    asked: Tensor  # (K,) logits for the attacker's class

    def __init__(self, net: nn.Module, num_classes: int, target: int) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("asked", TARGET_LOGIT * F.one_hot(torch.tensor(target), num_classes).float())

    def forward(self, x: Tensor) -> Tensor:
        match = contains_checkerboard(x)[:, None]
        return (1 - match) * self.net(x) + match * self.asked


class OverwrittenLogits(GraphEditedModel):
    """Overwrites the logits for images with a corner of one color."""

    asked: Tensor  # (K,) logits for the attacker's class
    color: Tensor  # (1, C, 1, 1)

    def __init__(self, net: nn.Module, num_classes: int, target: int, color: Tensor, size: int) -> None:
        super().__init__()
        self.net, self.size = net, size
        self.register_buffer("asked", TARGET_LOGIT * F.one_hot(torch.tensor(target), num_classes).float())
        self.register_buffer("color", color.view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        corner = x[..., : self.size, : self.size]
        match = ((corner - self.color).abs() <= 1 / 255).flatten(1).all(1)
        return torch.where(match[:, None], self.asked, self.net(x))
