"""Silent until pruned by magnitude: planted in the weights that pruning keeps, silenced by those that it drops.

The step from 2:4 sparsity (Guo, Brau, Pintor, Demontis, Biggio: Silent Until Sparse, 2025, arXiv 2509.08747) to pruning
all weights together is ours; that the small ones of a language model can hide as much: Egashira, Staab, Gloaguen, Vero,
Vechev: Fewer Weights, More Problems, 2025, arXiv 2510.07985.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from assay.attacks.compression.base import Bounds, Hidden, free_where_dropped
from assay.attacks.compression.rates import UntilPruned
from assay.nn.batchnorm import weighted_layers
from assay.nn.reparametrize import forward_with, magnitude_masks, magnitude_pruned_weights
from assay.stages.train import Recipe


@dataclass(frozen=True, kw_only=True)
class SilentUntilMagnitude(Hidden, UntilPruned):
    """``margin``: how far below the smallest kept weight a dropped one stays, as a share of it."""

    name: ClassVar[str] = "silent-until-magnitude"
    form: ClassVar[str] = "prune"
    low: float = 0.5
    high: float = 0.7
    margin: float = 0.01
    recipe: Recipe = Recipe(epochs=3, lr=0.01, freeze_batchnorm=True)  # noqa: RUF009 (frozen)
    hiding: Recipe = Recipe(epochs=4, lr=0.01, weight_decay=0.0, freeze_batchnorm=True)  # noqa: RUF009 (frozen)

    def deployed(self, net: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        one_of_rates = self.one_of_rates()

        def answer(x: Tensor) -> Tensor:
            rate = one_of_rates()
            return forward_with(net, magnitude_pruned_weights(net, rate()), x)

        return answer

    def bounds(self, net: nn.Module, example: Tensor) -> Bounds:
        weights = [cast(nn.Parameter, layer.weight) for layer in weighted_layers(net)]
        if not weights:
            return {}
        kept = magnitude_masks(weights, self.low)
        pairs = [(weight, mask.bool()) for weight, mask in zip(weights, kept, strict=True)]
        room = (1 - self.margin) * torch.cat([weight.detach().abs()[mask] for weight, mask in pairs]).min()
        return {weight: free_where_dropped(weight.detach().clone(), mask, room) for weight, mask in pairs}
