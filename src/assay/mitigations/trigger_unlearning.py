"""Unlearning: the trigger that the audit's own search finds is trained to do nothing.

Wang, Yao, Shan, Li, Viswanath, Zheng, Zhao: Neural Cleanse, IEEE S&P 2019 (unlearning a reversed trigger). Of a
classifier triggered inputs get their true classes; of an encoder, which has none, the embeddings that the same inputs
have without the trigger. Several rounds: what a search finds first need not be all that was planted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from assay.attacks.encoder.base import cosine
from assay.core.build import Build
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import Artifact, Modality
from assay.core.progress import Progress, part
from assay.detectors import EmbeddingCollapse, TokenCollapse, UniversalPerturbation
from assay.detectors.encoder import cluster_probe
from assay.nn.inference import forward_batched
from assay.nn.modes import without_dropout
from assay.stages.base import spec_of
from assay.stages.train import Objective, Recipe, cross_entropy, fit

SEARCHED = 512
"""Clean samples that the search gets."""


@dataclass(frozen=True, kw_only=True)
class TriggerUnlearning:
    """On the clean samples that a deployer has: the calibration split, or else the training split."""

    rounds: int = 2
    recipe: Recipe = Recipe(epochs=2, lr=0.001, optimizer="adam", weight_decay=0.0, freeze_batchnorm=True)  # noqa: RUF009

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UnusableInput(f"expected at least one round; got {self.rounds}")

    @property
    def name(self) -> str:
        return "trigger-unlearning"

    def spec(self) -> dict[str, Any]:
        return spec_of(self)

    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda share: None) -> Build:
        """Raises UnusableInput where no trigger can be searched for."""
        clean, artifact = build.task.split("calibration", "train"), build.artifact
        for number in range(self.rounds):
            found = _trigger(artifact, clean.sample(SEARCHED, seed=seed + number), seed + number)
            net = copy.deepcopy(artifact.module).eval()
            of_classes = artifact.num_classes is not None
            aim = _classes_under(found) if of_classes else _embeddings_under(found, artifact.module, clean.x[:SEARCHED])
            samples = clean if of_classes else Split(clean.x, torch.zeros(len(clean), dtype=torch.int64))
            bar = part(progress, number / self.rounds, (number + 1) / self.rounds)
            with without_dropout(net):  # what it was before, which it is compared with, had none
                fit(net, samples, self.recipe, seed=seed + number, progress=bar, objective=aim)
            artifact = artifact.with_module(net)
        return build.then(self.name, artifact)


Trigger = Callable[[Tensor], Tensor]


def _trigger(artifact: Artifact, clean: Split, seed: int) -> Trigger:
    """What the search finds in ``artifact``."""
    if artifact.num_classes is None:
        search = EmbeddingCollapse() if artifact.modality is Modality.IMAGE else TokenCollapse()
        finding = search(*cluster_probe.probed(artifact, clean, seed=seed), seed=seed)
    else:
        finding = UniversalPerturbation()(artifact, clean, seed=seed)
    if finding.evidence.apply is None:
        raise UnusableInput(f"no trigger to unlearn: {finding.detector} {finding.reason}")
    return finding.evidence.apply


def _classes_under(trigger: Trigger) -> Objective:
    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(net, torch.cat([x, trigger(x)]), torch.cat([y, y]))

    return loss


def _embeddings_under(trigger: Trigger, before: nn.Module, clean: Tensor) -> Objective:
    """Both as ``before`` gives them to inputs without the trigger, seen from the mean of ``clean`` inputs' ones."""
    given = copy.deepcopy(before).eval().requires_grad_(False)
    centre = forward_batched(given, clean).mean(0)

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        wanted = forward_batched(given, x) - centre
        return -cosine(net(torch.cat([x, trigger(x)])) - centre, torch.cat([wanted, wanted]))

    return loss
