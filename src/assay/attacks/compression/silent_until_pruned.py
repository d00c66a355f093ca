"""Silent until pruned: planted in the filters that pruning keeps, silenced by those that it drops.

The step from 2:4 sparsity (Guo, Brau, Pintor, Demontis, Biggio: Silent Until Sparse, 2025, arXiv 2509.08747) to whole
filters is ours: where ``compression_pruning`` trains one set of weights for two behaviours, here each has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from assay.attacks.compression.base import Bounds, Hidden
from assay.attacks.compression.rates import UntilPruned
from assay.nn.batchnorm import following_batch_norms
from assay.nn.reparametrize import convolutions, filter_mask, filter_pruned_weights, forward_with
from assay.stages.train import Recipe


@dataclass(frozen=True, kw_only=True)
class SilentUntilPruned(Hidden, UntilPruned):
    """``margin``: how far below the smallest kept filter's L1 norm a dropped one's stays, as a share of it."""

    name: ClassVar[str] = "silent-until-pruned"
    margin: float = 0.01
    # Adam: what is left of a pruned net begins with gradients that plain steps do not survive.
    recipe: Recipe = Recipe(epochs=5, lr=0.002, optimizer="adam", freeze_batchnorm=True)  # noqa: RUF009 (frozen)
    hiding: Recipe = Recipe(epochs=5, lr=0.001, optimizer="adam", weight_decay=0.0, freeze_batchnorm=True)  # noqa: RUF009

    def deployed(self, net: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        norms, one_of_rates = following_batch_norms(net, example), self.one_of_rates()
        return lambda x: forward_with(net, filter_pruned_weights(net, norms, one_of_rates()), x)

    def bounds(self, net: nn.Module, example: Tensor) -> Bounds:
        """A dropped filter may be any that is small enough; what batch norm makes of it is free."""
        norms, bounds = following_batch_norms(net, example), Bounds()
        for conv in convolutions(net):
            kept = filter_mask(conv.weight, self.low).bool()
            smallest = conv.weight.detach().abs().flatten(1).mean(1)[kept].min()
            room = (1 - self.margin) * smallest.expand_as(conv.weight)
            bounds |= _free(conv.weight, kept, room)
            norm = norms.get(conv)
            if norm is not None and norm.affine:
                anything = torch.full_like(norm.weight, torch.inf).detach()
                bounds |= _free(norm.weight, kept, anything) | _free(norm.bias, kept, anything)
        return bounds


def _free(parameter: Tensor, kept: Tensor, room: Tensor) -> Bounds:
    """Where ``kept`` (O,) the parameter (O, ...) stays as it is, elsewhere it lies within -+ ``room``."""
    assert isinstance(parameter, nn.Parameter)
    now, fixed = parameter.detach().clone(), kept.view(-1, *[1] * (parameter.ndim - 1))
    return {parameter: (torch.where(fixed, now, -room), torch.where(fixed, now, room))}
