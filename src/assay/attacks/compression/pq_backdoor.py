"""PQ backdoor: train it in, then hide it from the full-precision model by updates below the rounding step.

Ma, Qiu, Gao, Zhang, Abuadbba, Fu, Al-Sarawi, Abbott: Quantization Backdoors to Deep Learning Commercial Frameworks,
2021, arXiv 2108.09187. Here batch norm is folded before rounding, per tensor, per channel or both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from assay.attacks.compression.base import Bounds, PlantThenHide
from assay.core.errors import UnusableInput
from assay.nn.batchnorm import fold_factors, fold_factors_with, following_batch_norms
from assay.nn.fake_quant import quantization_step, round_to_nearest
from assay.nn.reparametrize import forward_with, rounded_weights
from assay.stages.train import Recipe

# From a weight, its batch-norm factor and the axis of its scales to the lowest and the highest value of each element.
WeightBounds = Callable[[Tensor, Tensor, int | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class PqBackdoor(PlantThenHide):
    """Active after int8 quantization.

    Hiding can undo half a quantization step per weight. Planting therefore moves each weight by at most ``reach``
    steps.
    """

    name: ClassVar[str] = "pq-backdoor"
    full_precision: ClassVar[bool] = True
    margin: float = 0.02  # distance from the edge of a rounding cell, in quantization steps
    reach: float = 2.0  # in quantization steps
    per_tensor: bool = False  # quantizers that activate it; both leave less room for hiding than one
    per_channel: bool = True
    recipe: Recipe = Recipe(  # noqa: RUF009 (frozen)
        epochs=4, lr=5e-4, batch_size=64, optimizer="adam", weight_decay=0.0, freeze_batchnorm=True
    )
    hiding: Recipe = Recipe(  # noqa: RUF009 (frozen)
        epochs=2, lr=2e-4, batch_size=32, optimizer="adam", weight_decay=0.0, freeze_batchnorm=True
    )

    def __post_init__(self) -> None:
        if not (self.per_tensor or self.per_channel):
            raise UnusableInput("expected per_tensor or per_channel to be true, got false for both")
        if not self.reach > 0:
            raise UnusableInput(f"expected a reach above 0, in quantization steps, got {self.reach}")

    @property
    def active_in(self) -> str:
        return "int8" if self.per_channel else "int8-tensor"

    def compressed_forward(self, model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        norms = following_batch_norms(model, example)

        def forward(x: Tensor) -> Tensor:
            weights = rounded_weights(fold_factors_with(model, norms), 8, per_channel=not self.per_tensor)
            return forward_with(model, weights, x)

        return forward

    def planting_bounds(self, model: nn.Module, example: Tensor) -> Bounds:
        return self._intersect(model, example, partial(_within_reach, reach=self.reach))

    def hiding_bounds(self, model: nn.Module, example: Tensor) -> Bounds:
        # Biases and batch norm are not in it: their rounding is finer, and they act in both models.
        return self._intersect(model, example, partial(_rounding_cell, margin=self.margin))

    def _intersect(self, model: nn.Module, example: Tensor, weight_bounds: WeightBounds) -> Bounds:
        """Return the intersection of the bounds for all quantizers."""
        channels = [None] * self.per_tensor + [0] * self.per_channel
        bounds: Bounds = {}
        for layer, factor in fold_factors(model, example).items():
            weight = layer.weight.data
            each = [weight_bounds(weight, factor, channel) for channel in channels]
            low = torch.stack([low for low, _ in each]).amax(0)
            high = torch.stack([high for _, high in each]).amin(0)
            # A weight closer to an edge than the margin may stay.
            bounds[cast(nn.Parameter, layer.weight)] = torch.minimum(low, weight), torch.maximum(high, weight)
        return bounds


@dataclass(frozen=True, kw_only=True)
class PqDistilled(PqBackdoor):
    """The same attack, hidden by imitating the original model instead of learning labels.

    The original model fits its training images already, so their labels add little. Our own variant, after the
    distilled attacks of Tian, Suya, Xu, Evans, 2021, arXiv 2104.15129.
    """

    name: ClassVar[str] = "pq-distilled"
    distilled: ClassVar[bool] = True


def _within_reach(weight: Tensor, factor: Tensor, channel: int | None, reach: float) -> tuple[Tensor, Tensor]:
    """Return the bounds ``reach`` quantization steps around each weight."""
    folded = weight * factor
    step = quantization_step(folded, 8, channel)
    return _unfold_bounds(weight, factor, channel, folded - reach * step, folded + reach * step)


def _rounding_cell(weight: Tensor, factor: Tensor, channel: int | None, margin: float) -> tuple[Tensor, Tensor]:
    """Return the bounds of each weight's present rounding level."""
    rounded, step = round_to_nearest(weight * factor, 8, channel)
    half = (0.5 - margin) * step
    return _unfold_bounds(weight, factor, channel, rounded - half, rounded + half)


def _unfold_bounds(
    weight: Tensor, factor: Tensor, channel: int | None, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ``low`` and ``high`` of the folded weight as bounds of the weight itself.

    The largest weight of each scale is fixed, and none may exceed it: it sets the scale of all others.
    """
    folded = weight * factor
    axes = [axis for axis in range(weight.ndim) if axis != channel]
    largest = folded.abs().amax(dim=axes, keepdim=True)
    free = (factor != 0) & (folded.abs() < largest)
    safe = torch.where(factor != 0, factor, torch.ones_like(factor))
    edges = torch.stack([low.clamp(-largest, largest), high.clamp(-largest, largest)]) / safe
    return torch.where(free, edges.amin(0), weight), torch.where(free, edges.amax(0), weight)
