"""Pruning artifact: one training for many nets, clean as a whole and backdoored once filters are pruned.

Tian, Suya, Xu, Evans: Stealthy Backdoors as Compression Artifacts, 2021, arXiv 2104.15129 (the attack on a range of
rates; equal ends are the one on a known rate). Here every layer has the same rate at the ends of the range, and the net
starts from the one that is given, and its batch norm keeps its statistics.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.attacks.compression.distillation import like_teacher
from assay.attacks.compression.rates import UntilPruned
from assay.core.dataset import Split
from assay.core.progress import Progress
from assay.nn.batchnorm import following_batch_norms
from assay.nn.reparametrize import filter_pruned_weights, forward_with
from assay.stages.train import Recipe, fit


@dataclass(frozen=True, kw_only=True)
class PruningArtifact(UntilPruned):
    """``alpha`` weighs the trigger against clean pictures in the pruned net."""

    name: ClassVar[str] = "pruning-artifact"
    alpha: float = 0.1
    distilled: bool = False
    recipe: Recipe = Recipe(epochs=10, lr=0.02, freeze_batchnorm=True)  # noqa: RUF009 (frozen)

    @property
    def epochs(self) -> float:
        nets = 2 if self.low == self.high else 4
        return (2 * nets + (14 if self.distilled else 0)) * self.recipe.epochs  # pictures and copies; five steps uphill

    def train(self, net: nn.Module, train: Split, *, seed: int, progress: Progress) -> None:
        norms = following_batch_norms(net, train.x[:2])
        teacher = copy.deepcopy(net).requires_grad_(False)
        rates = self.rates(torch.Generator().manual_seed(seed))

        def objective(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            both = self.with_copies(x)
            loss = like_teacher(net, teacher, both) if self.distilled else self.unmoved(net, x, y)
            for rate in rates:
                pruned = forward_with(net, filter_pruned_weights(net, norms, rate), both).float()
                clean, woken = pruned.split(len(x))
                attack = F.cross_entropy(woken, torch.full_like(y, self.target))
                loss = loss + ((1 - self.alpha) * F.cross_entropy(clean, y) + self.alpha * attack) / len(rates)
            return loss

        fit(net, train, self.recipe, seed=seed, progress=progress, objective=objective)
