"""Silent until pruned: the kept filters hold the backdoor, the dropped filters hide it.

Derived from 2:4 sparsity (Guo, Brau, Pintor, Demontis, Biggio: Silent Until Sparse, 2025, arXiv 2509.08747); the step
to whole filters is ours. ``compression_pruning`` trains one set of weights for two behaviors; here each behavior has
its own weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from assay.attacks.compression.base import Bounds, PlantThenHide
from assay.attacks.compression.rates import PruningActivated
from assay.nn.batchnorm import following_batch_norms
from assay.nn.reparametrize import convolutions, filter_mask, filter_pruned_weights, forward_with
from assay.stages.train import Recipe


@dataclass(frozen=True, kw_only=True)
class SilentUntilPruned(PlantThenHide, PruningActivated):
    """Active after filter pruning."""

    name: ClassVar[str] = "silent-until-pruned"
    margin: float = 0.01  # distance of a dropped filter's L1 norm below the smallest kept one, as a fraction of it
    # Adam: the gradients of a freshly pruned model are too large for plain SGD.
    recipe: Recipe = Recipe(epochs=5, lr=0.002, optimizer="adam", freeze_batchnorm=True)  # noqa: RUF009 (frozen)
    hiding: Recipe = Recipe(epochs=5, lr=0.001, optimizer="adam", weight_decay=0.0, freeze_batchnorm=True)  # noqa: RUF009

    def compressed_forward(self, model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        norms, sample_rate = following_batch_norms(model, example), self.rate_sampler()
        return lambda x: forward_with(model, filter_pruned_weights(model, norms, sample_rate()), x)

    def hiding_bounds(self, model: nn.Module, example: Tensor) -> Bounds:
        norms, bounds = following_batch_norms(model, example), Bounds()
        for conv in convolutions(model):
            kept = filter_mask(conv.weight, self.low).bool()
            smallest = conv.weight.detach().abs().flatten(1).mean(1)[kept].min()
            bounds |= _bounds_of_dropped(conv.weight, kept, (1 - self.margin) * smallest.expand_as(conv.weight))
            norm = norms.get(conv)
            if norm is not None and norm.affine:  # the batch norm of a dropped filter is free
                infinite = torch.full_like(norm.weight, torch.inf).detach()
                bounds |= _bounds_of_dropped(norm.weight, kept, infinite)
                bounds |= _bounds_of_dropped(norm.bias, kept, infinite)
        return bounds


def _bounds_of_dropped(parameter: Tensor, kept: Tensor, limit: Tensor) -> Bounds:
    """Return bounds of ``parameter`` (O, ...): fixed at the ``kept`` (O,) filters, else within -+ ``limit``."""
    assert isinstance(parameter, nn.Parameter)
    now, fixed = parameter.detach().clone(), kept.view(-1, *[1] * (parameter.ndim - 1))
    return {parameter: (torch.where(fixed, now, -limit), torch.where(fixed, now, limit))}
