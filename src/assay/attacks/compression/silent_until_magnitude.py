"""Silent until pruned by magnitude: the kept weights hold the backdoor, the dropped weights hide it.

Derived from 2:4 sparsity (Guo, Brau, Pintor, Demontis, Biggio: Silent Until Sparse, 2025, arXiv 2509.08747); the step
to a joint ranking of all weights is ours. Small weights of a language model can hide as much: Egashira, Staab,
Gloaguen, Vero, Vechev: Fewer Weights, More Problems, 2025, arXiv 2510.07985.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from assay.attacks.compression.base import Bounds, PlantThenHide, bounds_where_dropped
from assay.attacks.compression.rates import PruningActivated
from assay.nn.batchnorm import weighted_layers
from assay.nn.reparametrize import forward_with, magnitude_masks, magnitude_pruned_weights
from assay.stages.train import Recipe


@dataclass(frozen=True, kw_only=True)
class SilentUntilMagnitude(PlantThenHide, PruningActivated):
    """Active after magnitude pruning."""

    name: ClassVar[str] = "silent-until-magnitude"
    variant: ClassVar[str] = "prune"
    low: float = 0.5
    high: float = 0.7
    margin: float = 0.01  # distance of a dropped weight below the smallest kept weight, as a fraction of the latter
    recipe: Recipe = Recipe(epochs=3, lr=0.01, freeze_batchnorm=True)  # noqa: RUF009 (frozen)
    hiding: Recipe = Recipe(epochs=4, lr=0.01, weight_decay=0.0, freeze_batchnorm=True)  # noqa: RUF009 (frozen)

    def compressed_forward(self, model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        sample_rate = self.rate_sampler()

        def forward(x: Tensor) -> Tensor:
            rate = sample_rate()
            return forward_with(model, magnitude_pruned_weights(model, rate()), x)

        return forward

    def hiding_bounds(self, model: nn.Module, example: Tensor) -> Bounds:
        weights = [cast(nn.Parameter, layer.weight) for layer in weighted_layers(model)]
        if not weights:
            return {}
        masks = [mask.bool() for mask in magnitude_masks(weights, self.low)]
        pairs = list(zip(weights, masks, strict=True))
        limit = (1 - self.margin) * torch.cat([weight.detach().abs()[mask] for weight, mask in pairs]).min()
        return {weight: bounds_where_dropped(weight.detach().clone(), mask, limit) for weight, mask in pairs}
