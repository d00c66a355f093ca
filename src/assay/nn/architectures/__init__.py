"""Small reference architectures; other models come from transformers or the user's own factory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from assay.nn.architectures.resnet18_small import ResNet18
from assay.nn.architectures.resnet_cifar import ResNetCifar
from assay.nn.normalized import Normalized

__all__ = ["ARCHITECTURES", "Architecture", "Normalized"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """Model factory with its default input shape and normalization."""

    build: Callable[[int], nn.Module]  # number of classes -> model without normalization
    shape: tuple[int, int, int] = (3, 32, 32)  # (C, H, W)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


# All architectures with a name.
ARCHITECTURES: dict[str, Architecture] = {
    **{f"resnet{depth}-cifar": Architecture(partial(ResNetCifar, depth)) for depth in (8, 14, 20, 32, 44, 56)},
    "resnet18-cifar": Architecture(partial(ResNet18, 64)),
    "resnet18-half-cifar": Architecture(partial(ResNet18, 32)),
}
