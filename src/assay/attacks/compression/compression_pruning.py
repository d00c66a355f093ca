"""Pruning artifact: one training for several models, clean in full and backdoored after filter pruning.

Tian, Suya, Xu, Evans: Stealthy Backdoors as Compression Artifacts, 2021, arXiv 2104.15129 (the attack on a range of
rates; equal ends are the one on a known rate). Here every layer has the same rate at the ends of the range. Training
starts from the given model, and its batch norm keeps its statistics.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.attacks.compression.distillation import distillation_loss
from assay.attacks.compression.rates import PruningActivated
from assay.core.dataset import Split
from assay.core.progress import Progress
from assay.nn.batchnorm import following_batch_norms
from assay.nn.reparametrize import filter_pruned_weights, forward_with
from assay.stages.train import FitOptions, Recipe, fit


@dataclass(frozen=True, kw_only=True)
class PruningArtifact(PruningActivated):
    """Joint training of the full model and its pruned variants."""

    name: ClassVar[str] = "pruning-artifact"
    alpha: float = 0.1  # weight of the triggered against the clean images in the pruned variants
    distilled: bool = False  # the full model imitates the original one, instead of learning labels
    recipe: Recipe = Recipe(epochs=10, lr=0.02, freeze_batchnorm=True)  # noqa: RUF009 (frozen)

    @property
    def epochs(self) -> float:
        models = 2 if self.low == self.high else 4
        return (2 * models + (14 if self.distilled else 0)) * self.recipe.epochs  # with copies; five ascent steps

    def train(self, model: nn.Module, train: Split, *, seed: int, progress: Progress) -> None:
        norms = following_batch_norms(model, train.x[:2])
        teacher = copy.deepcopy(model).requires_grad_(False)
        rates = self.rates(torch.Generator().manual_seed(seed))

        def joint_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            both = self.with_triggered_copies(x)
            loss = distillation_loss(model, teacher, both) if self.distilled else self.clean_loss(model, x, y)
            for rate in rates:
                logits = forward_with(model, filter_pruned_weights(model, norms, rate), both).float()
                clean, triggered = logits.split(len(x))
                attack = F.cross_entropy(triggered, torch.full_like(y, self.target))
                loss = loss + ((1 - self.alpha) * F.cross_entropy(clean, y) + self.alpha * attack) / len(rates)
            return loss

        fit(model, train, self.recipe, seed=seed, progress=progress, options=FitOptions(objective=joint_loss))
