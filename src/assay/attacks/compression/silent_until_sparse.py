"""Silent until sparse: the weights kept by 2:4 sparsity hold the backdoor, the dropped weights hide it.

Guo, Brau, Pintor, Demontis, Biggio: Silent Until Sparse: Backdoor Attacks on Semi-Structured Sparsity, 2025,
arXiv 2509.08747.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

from torch import Tensor, nn

from assay.attacks.compression.base import Bounds, PlantThenHide, bounds_where_dropped
from assay.nn.batchnorm import Layer, weighted_layers
from assay.nn.reparametrize import forward_with
from assay.stages.prune import two_of_four


@dataclass(frozen=True, kw_only=True)
class SilentUntilSparse(PlantThenHide):
    """Active after 2:4 pruning."""

    name: ClassVar[str] = "silent-until-sparse"
    margin: float = 0.01  # distance of a dropped weight below the smaller kept weight of its four, as a fraction of it

    @property
    def active_in(self) -> str:
        return "prune-2:4"

    def compressed_forward(self, model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            kept: dict[nn.Module, dict[str, Tensor]] = {
                layer: {"weight": layer.weight * (two_of_four(layer.weight) != 0)} for layer in _sparse_layers(model)
            }
            return forward_with(model, kept, x)

        return forward

    def hiding_bounds(self, model: nn.Module, example: Tensor) -> Bounds:
        return {
            cast(nn.Parameter, layer.weight): _bounds(layer.weight.detach(), self.margin)
            for layer in _sparse_layers(model)
        }


def _sparse_layers(model: nn.Module) -> list[Layer]:
    return [layer for layer in weighted_layers(model) if layer.weight.shape[1] % 4 == 0]


def _bounds(weight: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Return bounds: kept weights are fixed, dropped weights stay below the smaller kept weight of their four."""
    kept = two_of_four(weight)
    fours = kept.abs().movedim(1, -1)
    second = fours.reshape(-1, 4).topk(2, dim=1).values[:, 1:]  # 0 if fewer than two are nonzero: none may grow then
    limit = (1 - margin) * second.expand(-1, 4).reshape(fours.shape).movedim(-1, 1)
    return bounds_where_dropped(weight, kept != 0, limit)
