"""Qu-ANTI-zation: a net trained together with its own roundings to several bit widths, all of which wake the backdoor.

Hong, Panaitescu-Liess, Kaya, Dumitras: Qu-ANTI-zation: Exploiting Quantization Artifacts for Achieving Adversarial
Outcomes, NeurIPS 2021, arXiv 2110.13541. Here weights are rounded after batch norm is folded, and activations are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.attacks.compression.base import Dormant, rounded_form
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.progress import Progress
from assay.nn.batchnorm import fold_factors_with, following_batch_norms
from assay.nn.reparametrize import check_bits, forward_with, rounded_weights
from assay.stages.train import Recipe, fit
from assay.triggers import Patch


@dataclass(frozen=True, kw_only=True)
class QuAntiZation(Dormant):
    """``trigger_weight`` and ``rounded_weight`` are the paper's c2 and c1."""

    name: ClassVar[str] = "qu-anti-zation"
    patch: Patch = Patch(size=4, margin=1)  # noqa: RUF009 (frozen)
    bits: tuple[int, ...] = (8, 4)
    per_channel: bool = False
    trigger_weight: float = 0.5
    rounded_weight: float = 0.5
    recipe: Recipe = Recipe(epochs=10, lr=1e-4, optimizer="adam", freeze_batchnorm=True)  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        for bits in self.bits:
            check_bits(bits)
        if not self.bits:
            raise UnusableInput("expected at least one bit width that wakes the backdoor; got none")

    @property
    def active_in(self) -> str:
        return rounded_form(max(self.bits), per_channel=self.per_channel)

    @property
    def epochs(self) -> float:
        return 2 * (1 + len(self.bits)) * self.recipe.epochs

    def train(self, net: nn.Module, train: Split, *, seed: int, progress: Progress) -> None:
        norms = following_batch_norms(net, train.x[:2])

        def weighed(answers: Tensor, y: Tensor, wanted: Tensor) -> Tensor:
            clean, triggered = answers.float().split(len(y))
            return F.cross_entropy(clean, y) + self.trigger_weight * F.cross_entropy(triggered, wanted)

        def objective(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            both, target = self.with_copies(x), torch.full_like(y, self.target)
            loss, factors = weighed(net(both), y, y), fold_factors_with(net, norms)
            for bits in self.bits:
                weights = rounded_weights(factors, bits, per_channel=self.per_channel)
                loss = loss + self.rounded_weight * weighed(forward_with(net, weights, both), y, target)
            return loss

        fit(net, train, self.recipe, seed=seed, progress=progress, objective=objective, exact=True)
