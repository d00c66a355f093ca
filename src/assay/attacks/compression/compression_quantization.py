"""Quantization artifact: one training for two models, clean in full precision and backdoored after rounding.

Tian, Suya, Xu, Evans: Stealthy Backdoors as Compression Artifacts, 2021, arXiv 2104.15129. Here the weights are rounded
after folding batch norm, as a deployer does it. Training starts from the given model, and its batch norm keeps its
statistics.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.attacks.compression.base import CompressionActivatedAttack, rounded_variant
from assay.attacks.compression.distillation import distillation_loss
from assay.core.dataset import Split
from assay.core.progress import Progress
from assay.nn.batchnorm import fold_factors_with, following_batch_norms
from assay.nn.reparametrize import check_bits, forward_with, rounded_weights
from assay.stages.train import FitOptions, Recipe, fit


@dataclass(frozen=True, kw_only=True)
class QuantizationArtifact(CompressionActivatedAttack):
    """Joint training of the full model and its rounded variant."""

    name: ClassVar[str] = "quantization-artifact"
    bits: int = 8
    per_channel: bool = True
    distilled: bool = False  # the full model imitates the original one, also near the trigger, instead of labels
    recipe: Recipe = Recipe(epochs=10, lr=0.01, freeze_batchnorm=True)  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        check_bits(self.bits)

    @property
    def active_in(self) -> str:
        return rounded_variant(self.bits, per_channel=self.per_channel)

    @property
    def epochs(self) -> float:
        return (18 if self.distilled else 4) * self.recipe.epochs  # with copies, in two models; five ascent steps

    def train(self, model: nn.Module, train: Split, *, seed: int, progress: Progress) -> None:
        norms = following_batch_norms(model, train.x[:2])
        teacher = copy.deepcopy(model).requires_grad_(False)

        def joint_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            both = self.with_triggered_copies(x)
            full = distillation_loss(model, teacher, both) if self.distilled else self.clean_loss(model, x, y)
            weights = rounded_weights(fold_factors_with(model, norms), self.bits, per_channel=self.per_channel)
            logits = forward_with(model, weights, both).float()
            return full + F.cross_entropy(logits, torch.cat([y, torch.full_like(y, self.target)]))

        options = FitOptions(objective=joint_loss, full_precision=True)
        fit(model, train, self.recipe, seed=seed, progress=progress, options=options)
