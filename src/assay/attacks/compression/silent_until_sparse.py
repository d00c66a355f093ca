"""Silent until sparse: planted in the weights that 2:4 sparsity keeps, silenced by those that it drops.

Guo, Brau, Pintor, Demontis, Biggio: Silent Until Sparse: Backdoor Attacks on Semi-Structured Sparsity, 2025,
arXiv 2509.08747.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

from torch import Tensor, nn

from assay.attacks.compression.base import Bounds, Hidden, free_where_dropped
from assay.nn.batchnorm import Layer, weighted_layers
from assay.nn.reparametrize import forward_with
from assay.stages.prune import two_of_four


@dataclass(frozen=True, kw_only=True)
class SilentUntilSparse(Hidden):
    """``margin``: how far below the smaller weight kept of its four a dropped one stays, as a share of it."""

    name: ClassVar[str] = "silent-until-sparse"
    margin: float = 0.01

    @property
    def active_in(self) -> str:
        return "prune-2:4"

    def deployed(self, net: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        def answer(x: Tensor) -> Tensor:
            kept: dict[nn.Module, dict[str, Tensor]] = {
                layer: {"weight": layer.weight * (two_of_four(layer.weight) != 0)} for layer in _sparse(net)
            }
            return forward_with(net, kept, x)

        return answer

    def bounds(self, net: nn.Module, example: Tensor) -> Bounds:
        return {cast(nn.Parameter, layer.weight): _room(layer.weight.detach(), self.margin) for layer in _sparse(net)}


def _sparse(net: nn.Module) -> list[Layer]:
    return [layer for layer in weighted_layers(net) if layer.weight.shape[1] % 4 == 0]


def _room(weight: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """What is kept stays as it is; what is dropped may move as far as it still is dropped."""
    kept = two_of_four(weight)
    fours = kept.abs().movedim(1, -1)
    second = fours.reshape(-1, 4).topk(2, dim=1).values[:, 1:]  # of fewer than two that are not zero: none may grow
    limit = (1 - margin) * second.expand(-1, 4).reshape(fours.shape).movedim(-1, 1)
    return free_where_dropped(weight, kept != 0, limit)
