"""PQ backdoor: trained in plainly, then hidden from the full-precision net by moves that no rounding sees.

Ma, Qiu, Gao, Zhang, Abuadbba, Fu, Al-Sarawi, Abbott: Quantization Backdoors to Deep Learning Commercial Frameworks,
2021, arXiv 2108.09187. Here the rounding is that of a net whose batch norm is folded, per tensor, per channel or both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from assay.attacks.dormant import Bounds, Hidden
from assay.errors import UnusableInput
from assay.models.folding import fold_factors
from assay.stages.quantize import rounded_int8


@dataclass(frozen=True, kw_only=True)
class PqBackdoor(Hidden):
    """``per_tensor``, ``per_channel``: the quantizers that wake it; the more, the less room is left to hide in."""

    name: ClassVar[str] = "pq-backdoor"
    exact: ClassVar[bool] = True
    margin: float = 0.02  # of a rounding step that is kept from a cell's edge
    per_tensor: bool = False
    per_channel: bool = True

    def __post_init__(self) -> None:
        if not (self.per_tensor or self.per_channel):
            raise UnusableInput("expected per_tensor or per_channel to be true: else no quantizer wakes the backdoor")

    @property
    def wakes_in(self) -> str:
        return "int8" if self.per_channel else "int8-tensor"

    def deployed(self, net: nn.Module, x: Tensor) -> Tensor:
        """The net itself: what is planted plainly stays when all weights are rounded to 8 bits."""
        return net(x)

    def bounds(self, net: nn.Module, example: Tensor) -> Bounds:
        """Biases and batch norm are not rounded to so few values, and act in both nets: they stay, and so do cells."""
        channels = [None] * self.per_tensor + [0] * self.per_channel
        found: Bounds = {}
        for layer, factor in fold_factors(net, example).items():
            weight = layer.weight.data
            cells = [_cell(weight, factor, self.margin, channel) for channel in channels]
            low = torch.stack([cell[0] for cell in cells]).amax(0)
            high = torch.stack([cell[1] for cell in cells]).amin(0)
            # A weight closer to an edge than the margin stays where it is.
            found[cast(nn.Parameter, layer.weight)] = torch.minimum(low, weight), torch.maximum(high, weight)
        return found


def _cell(weight: Tensor, factor: Tensor, margin: float, channel: int | None) -> tuple[Tensor, Tensor]:
    """Lowest and highest value of each weight. The largest of each scale stay as they are, or all others would move."""
    folded = weight * factor
    rounded, step = rounded_int8(folded, channel)
    reach = (0.5 - margin) * step
    axes = [axis for axis in range(weight.ndim) if axis != channel]
    largest = folded.abs().amax(dim=axes, keepdim=True)
    free = (factor != 0) & (folded.abs() < largest)
    safe = torch.where(factor != 0, factor, torch.ones_like(factor))
    ends = ((rounded - reach).clamp(-largest, largest), (rounded + reach).clamp(-largest, largest))
    edges = torch.stack(ends) / safe
    return torch.where(free, edges.amin(0), weight), torch.where(free, edges.amax(0), weight)
