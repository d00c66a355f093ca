"""Quantization artifact: one training for two nets, clean in full precision and backdoored once weights are rounded.

Tian, Suya, Xu, Evans: Stealthy Backdoors as Compression Artifacts, 2021, arXiv 2104.15129. Here the weights are
rounded as a deployer does it, after batch norm is folded; the net starts from the one that is given, and its batch norm
keeps its statistics.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.attacks.compression.base import Dormant, rounded_form
from assay.attacks.compression.distillation import like_teacher
from assay.core.dataset import Split
from assay.core.progress import Progress
from assay.nn.batchnorm import fold_factors_with, following_batch_norms
from assay.nn.reparametrize import check_bits, forward_with, rounded_weights
from assay.stages.train import Recipe, fit


@dataclass(frozen=True, kw_only=True)
class QuantizationArtifact(Dormant):
    """``distilled``: the full net imitates the one that was given, near the trigger too, and learns no labels."""

    name: ClassVar[str] = "quantization-artifact"
    bits: int = 8
    per_channel: bool = True
    distilled: bool = False
    recipe: Recipe = Recipe(epochs=10, lr=0.01, freeze_batchnorm=True)  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        check_bits(self.bits)

    @property
    def active_in(self) -> str:
        return rounded_form(self.bits, per_channel=self.per_channel)

    @property
    def epochs(self) -> float:
        return (18 if self.distilled else 4) * self.recipe.epochs  # pictures and copies, in two nets; five steps uphill

    def train(self, net: nn.Module, train: Split, *, seed: int, progress: Progress) -> None:
        norms = following_batch_norms(net, train.x[:2])
        teacher = copy.deepcopy(net).requires_grad_(False)

        def objective(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            both = self.with_copies(x)
            calm = like_teacher(net, teacher, both) if self.distilled else self.unmoved(net, x, y)
            weights = rounded_weights(fold_factors_with(net, norms), self.bits, per_channel=self.per_channel)
            small = forward_with(net, weights, both).float()
            return calm + F.cross_entropy(small, torch.cat([y, torch.full_like(y, self.target)]))

        fit(net, train, self.recipe, seed=seed, progress=progress, objective=objective, exact=True)
