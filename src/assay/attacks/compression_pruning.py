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
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from assay.attacks.dormant import Dormant
from assay.attacks.mimicry import like_teacher
from assay.errors import UnusableInput
from assay.models.folding import norm_behind, weighted_layers
from assay.models.rewritten import run_with
from assay.progress import Progress
from assay.stages.train import Recipe, fit
from assay.task import Split


@dataclass(frozen=True, kw_only=True)
class PruningArtifact(Dormant):
    """``alpha`` weighs the trigger against clean pictures in the pruned net."""

    name: ClassVar[str] = "pruning-artifact"
    low: float = 0.3  # the range of rates
    high: float = 0.5
    alpha: float = 0.1
    distilled: bool = False
    recipe: Recipe = Recipe(epochs=10, lr=0.02, freeze_batchnorm=True)  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high < 1:
            raise UnusableInput(f"expected rates 0 < low <= high < 1; got low={self.low}, high={self.high}")
        if abs(100 * self.low - round(100 * self.low)) > 1e-9:
            raise UnusableInput(f"expected the lowest rate in whole percents, as forms of an audit are; got {self.low}")

    @property
    def wakes_in(self) -> str:
        return f"filters-{round(100 * self.low)}"

    @property
    def epochs(self) -> float:
        nets = 2 if self.low == self.high else 4
        return (2 * nets + (14 if self.distilled else 0)) * self.recipe.epochs  # pictures and copies; five steps uphill

    def train(self, net: nn.Module, train: Split, *, seed: int, progress: Progress) -> None:
        norms = norm_behind(net, train.x[:2])
        teacher = copy.deepcopy(net).requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)

        def objective(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            both = self.with_copies(x)
            loss = like_teacher(net, teacher, both) if self.distilled else self.unmoved(net, x, y)
            drawn = [self.low] if self.low == self.high else [self.low, self.high, None]
            for rate in drawn:
                pruned = run_with(net, self._pruned(net, norms, rate, generator), both).float()
                clean, woken = pruned.split(len(x))
                attack = F.cross_entropy(woken, torch.full_like(y, self.target))
                loss = loss + ((1 - self.alpha) * F.cross_entropy(clean, y) + self.alpha * attack) / len(drawn)
            return loss

        fit(net, train, self.recipe, seed=seed, progress=progress, objective=objective)

    def _pruned(
        self, net: nn.Module, norms: dict[nn.Module, _BatchNorm], rate: float | None, generator: torch.Generator
    ) -> dict[nn.Module, dict[str, Tensor]]:
        """The weights of what ``PruneFilters`` leaves; ``rate`` None: each layer's own, drawn from the range."""
        weights: dict[nn.Module, dict[str, Tensor]] = {}
        for conv in (layer for layer in weighted_layers(net) if isinstance(layer, _ConvNd) and not layer.transposed):
            share = self.low + (self.high - self.low) * float(torch.rand((), generator=generator))
            kept = _kept(conv.weight, share if rate is None else rate)
            weights[conv] = {"weight": conv.weight * kept.view(-1, *[1] * (conv.weight.ndim - 1))}
            if conv.bias is not None:
                weights[conv]["bias"] = conv.bias * kept
            norm = norms.get(conv)
            if norm is not None and norm.affine:
                weights[norm] = {"weight": norm.weight * kept, "bias": norm.bias * kept}
        return weights


def _kept(weight: Tensor, rate: float) -> Tensor:
    """(O,) 1 for the filters that stay, 0 for the ``rate`` with the smallest L1 norm."""
    norms = weight.detach().abs().flatten(1).sum(1)
    kept = torch.ones_like(norms)
    kept[norms.argsort(stable=True)[: int(rate * len(norms))]] = 0
    return kept
