"""Pruning: single weights, whole filters, and the 2:4 pattern that sparse tensor cores take.

Pruned weights are set to zero and keep their place, so that shapes, formats and the chain's cache stay as they are.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from assay.core.build import Build
from assay.core.errors import UnusableInput
from assay.nn.batchnorm import Layer, following_batch_norms, weighted_layers
from assay.nn.reparametrize import filter_mask, magnitude_masks
from assay.stages.base import spec_of
from assay.stages.recalibrate import recalibrated


@dataclass(frozen=True, kw_only=True)
class PruneMagnitude:
    """Zeroes the smallest ``rate`` of all weights of convolutions and linear layers, ranked together by magnitude.

    The stem and the final classifier take part like every other layer; biases and batch norm do not.
    Han et al.: Learning both Weights and Connections for Efficient Neural Networks, 2015, arXiv 1506.02626 (without
    the retraining, which is a stage of its own).
    """

    rate: float

    def __post_init__(self) -> None:
        _check_rate(self.rate)

    @property
    def name(self) -> str:
        return f"prune-magnitude-{self.rate:g}"

    def spec(self) -> dict[str, Any]:
        return spec_of(self)

    def __call__(self, build: Build, *, seed: int) -> Build:
        net = copy.deepcopy(build.artifact.module)
        weights = [layer.weight.data for layer in _layers(net)]
        for weight, kept in zip(weights, magnitude_masks(weights, self.rate), strict=True):
            weight.mul_(kept)
        return build.then(self.name, build.artifact.with_module(net, format="module"))


@dataclass(frozen=True, kw_only=True)
class PruneFilters:
    """Removes from each convolution the ``rate`` of its filters (rounded down) with the smallest L1 norm.

    A removed filter's weights, bias, and the scale and shift of the batch norm behind it are zero, so its channel is
    exactly zero from there on. Li et al.: Pruning Filters for Efficient ConvNets, 2017, arXiv 1608.08710; here every
    layer has the same rate, and no retraining follows. ``recalibrate``: re-estimate the batch norm statistics of what
    is left on ``samples`` clean samples of the calibration split, or else the training split.
    """

    rate: float
    recalibrate: bool = False
    samples: int = 512

    def __post_init__(self) -> None:
        _check_rate(self.rate)

    @property
    def name(self) -> str:
        return f"prune-filters-{self.rate:g}" + ("-recalibrated" if self.recalibrate else "")

    def spec(self) -> dict[str, Any]:
        return spec_of(self)

    def __call__(self, build: Build, *, seed: int) -> Build:
        clean = build.task.split("calibration", "train").sample(self.samples, seed=seed)
        net = copy.deepcopy(build.artifact.module).eval()
        norms = following_batch_norms(net, clean.x[:2])
        for conv in (layer for layer in _layers(net) if isinstance(layer, _ConvNd)):
            axis = 1 if conv.transposed else 0  # where the filters are; 0 in every plain convolution
            removed = filter_mask(conv.weight.transpose(0, axis), self.rate) == 0
            conv.weight.data.transpose(0, axis)[removed] = 0
            if conv.bias is not None and not conv.transposed:
                conv.bias.data[removed] = 0
            norm = norms.get(conv)
            if norm is not None and norm.affine and norm.num_features == len(removed):
                norm.weight.data[removed] = 0
                norm.bias.data[removed] = 0
        if self.recalibrate:
            net = recalibrated(net, clean.x)
        return build.then(self.name, build.artifact.with_module(net, format="module"))


@dataclass(frozen=True, kw_only=True)
class PruneTwoFour:
    """Keeps the two largest of every four neighbouring weights along the input dimension, and zeroes the other two.

    Convolutions and linear layers whose number of inputs is not a multiple of four stay dense (the stem, depthwise
    convolutions), as they do on the hardware. Mishra et al.: Accelerating Sparse Deep Neural Networks, 2021,
    arXiv 2104.08378 (without the retraining).
    """

    @property
    def name(self) -> str:
        return "prune-2:4"

    def spec(self) -> dict[str, Any]:
        return spec_of(self)

    def __call__(self, build: Build, *, seed: int) -> Build:
        net = copy.deepcopy(build.artifact.module)
        for layer in _layers(net):
            if layer.weight.shape[1] % 4 == 0:
                layer.weight.data.copy_(two_of_four(layer.weight.data))
        return build.then(self.name, build.artifact.with_module(net, format="module"))


def two_of_four(weight: Tensor) -> Tensor:
    """``weight`` (O, I, ...) with the two smallest of each group of four along I set to zero."""
    inputs_last = weight.movedim(1, -1)
    groups = inputs_last.reshape(-1, 4)
    smallest = groups.abs().argsort(dim=1, stable=True)[:, :2]
    return groups.scatter(1, smallest, 0.0).view(inputs_last.shape).movedim(-1, 1)


def _layers(net: nn.Module) -> list[Layer]:
    """Convolutions and linear layers, in order of registration. Raises UnusableInput where there are none."""
    layers = weighted_layers(net)
    if not layers:
        raise UnusableInput("pruning expects convolutions or linear layers as modules in torch, the net has none")
    return layers


def _check_rate(rate: float) -> None:
    if not 0 <= rate < 1:
        raise UnusableInput(f"expected a pruning rate in [0, 1), got {rate}")
