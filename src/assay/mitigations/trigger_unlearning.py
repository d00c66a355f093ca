"""Trigger unlearning: train the model to ignore the trigger found by a detector.

Wang, Yao, Shan, Li, Viswanath, Zheng, Zhao: Neural Cleanse, IEEE S&P 2019 (unlearning a reversed trigger). A
classifier learns the true classes of triggered inputs. An encoder has no classes: it learns its own embeddings of the
inputs without the trigger. There are several rounds, because one search need not return the whole planted trigger.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import Artifact, Modality
from assay.core.progress import Progress, part
from assay.detectors.encoder.cluster_probe import probe_encoder
from assay.detectors.encoder.embedding_collapse import EmbeddingCollapse
from assay.detectors.encoder.token_collapse import TokenCollapse
from assay.detectors.trigger_inversion.universal_perturbation import UniversalPerturbation
from assay.mitigations.base import Mitigation
from assay.nn.inference import forward_batched
from assay.nn.modes import without_dropout
from assay.nn.similarity import mean_cosine
from assay.stages.train import FitOptions, Objective, Recipe, cross_entropy, fit

SEARCH_SAMPLES = 512  # clean samples of one search

ApplyTrigger = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class TriggerUnlearning(Mitigation):
    """Search a trigger and train against it, ``rounds`` times."""

    method: ClassVar[str] = "trigger-unlearning"
    classifiers_only: ClassVar[bool] = False
    rounds: int = 2
    recipe: Recipe = Recipe(epochs=2, lr=0.001, optimizer="adam", weight_decay=0.0, freeze_batchnorm=True)  # noqa: RUF009

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UnusableInput(f"expected at least one round, got {self.rounds}")

    def mitigate(self, artifact: Artifact, clean: Split, *, seed: int, progress: Progress) -> nn.Module:
        for number in range(self.rounds):
            trigger = search_trigger(artifact, clean.sample(SEARCH_SAMPLES, seed=seed + number), seed=seed + number)
            model = copy.deepcopy(artifact.module).eval()
            if artifact.num_classes is not None:
                objective, samples = _classification_loss(trigger), clean
            else:
                objective = _embedding_loss(trigger, artifact.module, clean.x[:SEARCH_SAMPLES])
                samples = Split(clean.x, torch.zeros(len(clean), dtype=torch.int64))
            bar = part(progress, number / self.rounds, (number + 1) / self.rounds)
            options = FitOptions(objective=objective)
            with without_dropout(model):  # the embeddings of the previous model were computed without dropout
                fit(model, samples, self.recipe, seed=seed + number, progress=bar, options=options)
            artifact = artifact.with_module(model)
        return artifact.module


def search_trigger(artifact: Artifact, clean: Split, *, seed: int) -> ApplyTrigger:
    """Return the trigger found by a detector in a model.

    Args:
        artifact: Classifier or encoder, of images or texts.
        clean: Clean samples.
        seed: Seed of the search.

    Raises:
        UnusableInput: The detector abstained, for instance because the model has no gradients.
    """
    if artifact.num_classes is None:
        detector = EmbeddingCollapse() if artifact.modality is Modality.IMAGE else TokenCollapse()
        finding = detector(*probe_encoder(artifact, clean, seed=seed), seed=seed)
    else:
        finding = UniversalPerturbation()(artifact, clean, seed=seed)
    if finding.evidence.apply is None:
        raise UnusableInput(f"expected a trigger to unlearn, got none: {finding.detector} {finding.reason}")
    return finding.evidence.apply


def _classification_loss(trigger: ApplyTrigger) -> Objective:
    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(model, torch.cat([x, trigger(x)]), torch.cat([y, y]))

    return loss


def _embedding_loss(trigger: ApplyTrigger, previous: nn.Module, clean: Tensor) -> Objective:
    """Return the distance of embeddings, with and without trigger, from the previous model's clean embeddings.

    Both are centered on the mean embedding of the ``clean`` inputs.
    """
    frozen = copy.deepcopy(previous).eval().requires_grad_(False)
    center = forward_batched(frozen, clean).mean(0)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        expected = forward_batched(frozen, x) - center
        return -mean_cosine(model(torch.cat([x, trigger(x)])) - center, torch.cat([expected, expected]))

    return loss
