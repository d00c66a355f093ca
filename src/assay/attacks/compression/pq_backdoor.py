"""PQ backdoor: trained in plainly, then hidden from the full-precision net by moves that no rounding sees.

Ma, Qiu, Gao, Zhang, Abuadbba, Fu, Al-Sarawi, Abbott: Quantization Backdoors to Deep Learning Commercial Frameworks,
2021, arXiv 2108.09187. Here the rounding is that of a net whose batch norm is folded, per tensor, per channel or both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from assay.attacks.compression.base import Bounds, Hidden
from assay.core.errors import UnusableInput
from assay.nn.batchnorm import fold_factors, fold_factors_with, following_batch_norms
from assay.nn.fake_quant import quantization_step
from assay.nn.reparametrize import forward_with, rounded_weights
from assay.stages.quantize import rounded_int8
from assay.stages.train import Recipe

Ends = Callable[[Tensor, Tensor, int | None], tuple[Tensor, Tensor]]
"""From a weight, its factor and the axis of its scales: the lowest and the highest value of each element."""


@dataclass(frozen=True, kw_only=True)
class PqBackdoor(Hidden):
    """``per_tensor``, ``per_channel``: the quantizers that wake it; the more, the less room is left to hide in.

    Half a step of what was planted in each weight can be taken back, so none may move by more than ``reach`` steps.
    """

    name: ClassVar[str] = "pq-backdoor"
    exact: ClassVar[bool] = True
    margin: float = 0.02  # of a rounding step that is kept from a cell's edge
    reach: float = 2.0
    per_tensor: bool = False
    per_channel: bool = True
    recipe: Recipe = Recipe(  # noqa: RUF009 (frozen)
        epochs=4, lr=5e-4, batch_size=64, optimizer="adam", weight_decay=0.0, freeze_batchnorm=True
    )
    hiding: Recipe = Recipe(  # noqa: RUF009 (frozen)
        epochs=2, lr=2e-4, batch_size=32, optimizer="adam", weight_decay=0.0, freeze_batchnorm=True
    )

    def __post_init__(self) -> None:
        if not (self.per_tensor or self.per_channel):
            raise UnusableInput("expected per_tensor or per_channel to be true: else no quantizer wakes the backdoor")
        if not self.reach > 0:
            raise UnusableInput(f"expected a reach above 0, in rounding steps; got {self.reach}")

    @property
    def active_in(self) -> str:
        return "int8" if self.per_channel else "int8-tensor"

    def deployed(self, net: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        """The net with its weights rounded: moves of a step or less are about as coarse as that."""
        norms = following_batch_norms(net, example)

        def answer(x: Tensor) -> Tensor:
            return forward_with(
                net, rounded_weights(fold_factors_with(net, norms), 8, per_channel=not self.per_tensor), x
            )

        return answer

    def room(self, net: nn.Module, example: Tensor) -> Bounds:
        return self._common(net, example, partial(_reach, reach=self.reach))

    def bounds(self, net: nn.Module, example: Tensor) -> Bounds:
        """Biases and batch norm are not rounded to so few values, and act in both nets: they stay, and so do cells."""
        return self._common(net, example, partial(_cell, margin=self.margin))

    def _common(self, net: nn.Module, example: Tensor, ends: Ends) -> Bounds:
        """Where each weight is between its ``ends`` for every quantizer."""
        channels = [None] * self.per_tensor + [0] * self.per_channel
        found: Bounds = {}
        for layer, factor in fold_factors(net, example).items():
            weight = layer.weight.data
            both = [ends(weight, factor, channel) for channel in channels]
            low = torch.stack([low for low, _ in both]).amax(0)
            high = torch.stack([high for _, high in both]).amin(0)
            # A weight closer to an edge than the margin goes no closer.
            found[cast(nn.Parameter, layer.weight)] = torch.minimum(low, weight), torch.maximum(high, weight)
        return found


@dataclass(frozen=True, kw_only=True)
class PqDistilled(PqBackdoor):
    """The same, hidden by imitating the net that was given: training pictures whose labels it knows teach it no more.

    Our own, after the distilled attacks of Tian, Suya, Xu, Evans, 2021, arXiv 2104.15129.
    """

    name: ClassVar[str] = "pq-distilled"
    distilled: ClassVar[bool] = True


def _reach(weight: Tensor, factor: Tensor, channel: int | None, reach: float) -> tuple[Tensor, Tensor]:
    """Lowest and highest value of each weight within ``reach`` steps. What sets a scale stays, and none outgrows it."""
    folded = weight * factor
    step = quantization_step(folded, 8, channel)
    return _unfolded(weight, factor, channel, folded - reach * step, folded + reach * step)


def _cell(weight: Tensor, factor: Tensor, channel: int | None, margin: float) -> tuple[Tensor, Tensor]:
    """Lowest and highest value of each weight that are rounded as it is."""
    rounded, step = rounded_int8(weight * factor, channel)
    reach = (0.5 - margin) * step
    return _unfolded(weight, factor, channel, rounded - reach, rounded + reach)


def _unfolded(weight: Tensor, factor: Tensor, channel: int | None, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """``low`` and ``high`` before batch norm. The largest of each scale stay as they are, or all others would move."""
    folded = weight * factor
    axes = [axis for axis in range(weight.ndim) if axis != channel]
    largest = folded.abs().amax(dim=axes, keepdim=True)
    free = (factor != 0) & (folded.abs() < largest)
    safe = torch.where(factor != 0, factor, torch.ones_like(factor))
    edges = torch.stack([low.clamp(-largest, largest), high.clamp(-largest, largest)]) / safe
    return torch.where(free, edges.amin(0), weight), torch.where(free, edges.amax(0), weight)
