"""Pruning stages: single weights, whole filters, and the 2:4 pattern of sparse tensor cores.

Pruned weights are set to zero and keep their place. Shapes, formats and cached builds therefore stay valid.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from assay.core.build import Build
from assay.core.errors import UnusableInput
from assay.nn.batchnorm import Layer, following_batch_norms, weighted_layers
from assay.nn.reparametrize import filter_mask, magnitude_masks
from assay.stages.base import Stage
from assay.stages.recalibrate import recalibrate_batchnorm


@dataclass(frozen=True, kw_only=True)
class PruneMagnitude(Stage):
    """Zero the smallest ``rate`` of all weights of convolutions and linear layers, ranked together by magnitude.

    The first and the last layer are pruned like all others; biases and batch norm are not.
    Han et al.: Learning both Weights and Connections for Efficient Neural Networks, 2015, arXiv 1506.02626 (without
    the retraining, a separate stage).
    """

    rate: float  # in [0, 1)
    needs_data: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_rate(self.rate)

    @property
    def name(self) -> str:
        return f"prune-magnitude-{self.rate:g}"

    def __call__(self, build: Build, *, seed: int) -> Build:
        model = copy.deepcopy(build.artifact.module)
        weights = [layer.weight.data for layer in _prunable_layers(model)]
        for weight, mask in zip(weights, magnitude_masks(weights, self.rate), strict=True):
            weight.mul_(mask)
        return build.then(self.name, build.artifact.with_module(model, format="module"))


@dataclass(frozen=True, kw_only=True)
class PruneFilters(Stage):
    """Zero the ``rate`` of each convolution's filters (rounded down) with the smallest L1 norm.

    A removed filter's weights and bias are zero, and so are the scale and shift of the following batch norm. The output
    channel is therefore exactly zero. Li et al.: Pruning Filters for Efficient ConvNets, 2017, arXiv 1608.08710; here
    every layer has the same rate, and no retraining follows.
    """

    rate: float  # in [0, 1)
    recalibrate: bool = False  # re-estimate the remaining batch-norm statistics
    samples: int = 512  # clean samples of the calibration split, or else the training split

    def __post_init__(self) -> None:
        _check_rate(self.rate)

    @property
    def name(self) -> str:
        return f"prune-filters-{self.rate:g}" + ("-recalibrated" if self.recalibrate else "")

    def __call__(self, build: Build, *, seed: int) -> Build:
        clean = build.task.split("calibration", "train").sample(self.samples, seed=seed)
        model = copy.deepcopy(build.artifact.module).eval()
        norms = following_batch_norms(model, clean.x[:2])
        for conv in (layer for layer in _prunable_layers(model) if isinstance(layer, _ConvNd)):
            axis = 1 if conv.transposed else 0  # axis of the filters; 0 in every plain convolution
            removed = filter_mask(conv.weight.transpose(0, axis), self.rate) == 0
            conv.weight.data.transpose(0, axis)[removed] = 0
            if conv.bias is not None and not conv.transposed:
                conv.bias.data[removed] = 0
            norm = norms.get(conv)
            if norm is not None and norm.affine and norm.num_features == len(removed):
                norm.weight.data[removed] = 0
                norm.bias.data[removed] = 0
        if self.recalibrate:
            model = recalibrate_batchnorm(model, clean.x)
        return build.then(self.name, build.artifact.with_module(model, format="module"))


@dataclass(frozen=True, kw_only=True)
class PruneTwoFour(Stage):
    """Keep the two largest of every four neighboring weights along the input dimension, and zero the other two.

    Layers without a multiple of four inputs stay dense, as on the hardware: the first convolution and depthwise
    convolutions. Mishra et al.: Accelerating Sparse Deep Neural Networks, 2021, arXiv 2104.08378 (without
    the retraining).
    """

    needs_data: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return "prune-2:4"

    def __call__(self, build: Build, *, seed: int) -> Build:
        model = copy.deepcopy(build.artifact.module)
        for layer in _prunable_layers(model):
            if layer.weight.shape[1] % 4 == 0:
                layer.weight.data.copy_(two_of_four(layer.weight.data))
        return build.then(self.name, build.artifact.with_module(model, format="module"))


def two_of_four(weight: Tensor) -> Tensor:
    """Return ``weight`` (O, I, ...) with the two smallest of each group of four along I set to zero."""
    inputs_last = weight.movedim(1, -1)
    groups = inputs_last.reshape(-1, 4)
    smallest = groups.abs().argsort(dim=1, stable=True)[:, :2]
    return groups.scatter(1, smallest, 0.0).view(inputs_last.shape).movedim(-1, 1)


def _prunable_layers(model: nn.Module) -> list[Layer]:
    """Return convolutions and linear layers in order of registration; raise UnusableInput if there are none."""
    layers = weighted_layers(model)
    if not layers:
        raise UnusableInput("expected convolutions or linear layers to prune, got a model without any")
    return layers


def _check_rate(rate: float) -> None:
    if not 0 <= rate < 1:
        raise UnusableInput(f"expected a pruning rate in [0, 1), got {rate}")
