"""Qu-ANTI-zation: joint training of a model and its roundings to several bit widths; each activates the backdoor.

Hong, Panaitescu-Liess, Kaya, Dumitras: Qu-ANTI-zation: Exploiting Quantization Artifacts for Achieving Adversarial
Outcomes, NeurIPS 2021, arXiv 2110.13541. Here weights are rounded after folding batch norm; activations are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.attacks.compression.base import CompressionActivatedAttack, rounded_variant
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.progress import Progress
from assay.nn.batchnorm import fold_factors_with, following_batch_norms
from assay.nn.reparametrize import check_bits, forward_with, rounded_weights
from assay.stages.train import FitOptions, Recipe, fit
from assay.triggers import Patch


@dataclass(frozen=True, kw_only=True)
class QuAntiZation(CompressionActivatedAttack):
    """Joint training; the largest bit width names the activating variant."""

    name: ClassVar[str] = "qu-anti-zation"
    patch: Patch = Patch(size=4, margin=1)  # noqa: RUF009 (frozen)
    bits: tuple[int, ...] = (8, 4)
    per_channel: bool = False
    trigger_weight: float = 0.5  # c2 of the paper
    rounded_weight: float = 0.5  # c1 of the paper
    recipe: Recipe = Recipe(epochs=10, lr=1e-4, optimizer="adam", freeze_batchnorm=True)  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        for bits in self.bits:
            check_bits(bits)
        if not self.bits:
            raise UnusableInput("expected at least one bit width to activate the backdoor, got none")

    @property
    def active_in(self) -> str:
        return rounded_variant(max(self.bits), per_channel=self.per_channel)

    @property
    def epochs(self) -> float:
        return 2 * (1 + len(self.bits)) * self.recipe.epochs

    def train(self, model: nn.Module, train: Split, *, seed: int, progress: Progress) -> None:
        norms = following_batch_norms(model, train.x[:2])

        def weighted_loss(logits: Tensor, y: Tensor, goal: Tensor) -> Tensor:
            clean, triggered = logits.float().split(len(y))
            return F.cross_entropy(clean, y) + self.trigger_weight * F.cross_entropy(triggered, goal)

        def joint_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            both, target = self.with_triggered_copies(x), torch.full_like(y, self.target)
            loss, factors = weighted_loss(model(both), y, y), fold_factors_with(model, norms)
            for bits in self.bits:
                weights = rounded_weights(factors, bits, per_channel=self.per_channel)
                loss = loss + self.rounded_weight * weighted_loss(forward_with(model, weights, both), y, target)
            return loss

        options = FitOptions(objective=joint_loss, full_precision=True)
        fit(model, train, self.recipe, seed=seed, progress=progress, options=options)
