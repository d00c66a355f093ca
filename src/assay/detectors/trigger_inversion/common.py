"""Base of the detectors that reconstruct a trigger: search, check on other images, show the trigger."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.errors import Unfinished
from assay.core.finding import Evidence, Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.common import MAX_SHOWN_SAMPLES, continue_within, require_two_classes
from assay.detectors.requirement import Requirement
from assay.inversion.class_search import ClassSearchResult, SearchBudget, search_classes
from assay.inversion.families import Family, FamilyTrigger, apply_in_batches
from assay.inversion.latent_shift import features_and_head, smallest_shifts
from assay.inversion.prepare import prepare
from assay.inversion.run import CleanImages, SearchRun
from assay.inversion.window_search import WindowSearchBudget
from assay.nn.inference import predict

MASK_IMAGES = 64  # images whose mean change is the mask in the evidence
RANKING_IMAGES = 128  # images for the ranking of classes


class TriggerInversion(Detector):
    """Search for the class that a trigger reaches most easily; the score is that class's outlier score."""

    needs = Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES
    on_variants = False  # the scans test the variants: a search takes up to a minute for each
    search_budget: ClassVar[SearchBudget | WindowSearchBudget]

    @abstractmethod
    def search(
        self, artifact: Artifact, model: nn.Module, images: CleanImages, run: SearchRun[Any]
    ) -> tuple[Family, ClassSearchResult]:
        """Search for triggers.

        Args:
            artifact: The model under audit.
            model: Its module from ``prepare``.
            images: Clean images, with the classes that ``model`` predicts.
            run: Budget, seed and callback of the search.

        Returns:
            The family of the triggers, and the triggers.
        """

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        model = prepare(artifact.module, clean.x[:2])
        images = CleanImages(clean.x, require_two_classes(predict(model, clean.x)))
        search = SearchRun(self.search_budget.at(images.shape), seed, continue_within(budget, progress))
        family, found = self.search(artifact, model, images, search)
        raise_if_incomplete(found, search.budget.steps)
        evidence = trigger_evidence(model, family, found, images)
        return Finding(self.name, Outcome.SCORED, score=found.score, target=found.target, evidence=evidence)


class ClassSearch(TriggerInversion):
    """Trigger inversion with one trigger family."""

    family: ClassVar[Family]

    def search(
        self, artifact: Artifact, model: nn.Module, images: CleanImages, run: SearchRun[Any]
    ) -> tuple[Family, ClassSearchResult]:
        ranking = rank_classes(artifact.module, images, artifact.num_classes or 0)
        return self.family, search_classes(model, self.family, images, ranking, run)


def raise_if_incomplete(found: ClassSearchResult, steps: int) -> None:
    """Check that a search took all its ``steps``.

    Raises:
        Unfinished: The budget ended before.
    """
    if found.steps < steps and not found.stopped_early:
        raise Unfinished(f"the budget ended after {found.steps} of {steps} steps of the search: give it more")


def trigger_evidence(model: nn.Module, family: Family, found: ClassSearchResult, images: CleanImages) -> Evidence:
    """Return appearance and effect of the best trigger on all images; the search checked it on some only.

    Args:
        model: The model from ``prepare``.
        family: Family of the triggers.
        found: Result of the search.
        images: Clean images.
    """
    others = images.predicted != found.target
    before = images.x[others]
    after = apply_in_batches(family, found.parameters, before)
    predicted_after = predict(model, after)
    change = (after[:MASK_IMAGES] - before[:MASK_IMAGES]).abs().mean(dim=(0, 1))
    gray = torch.full_like(images.x[:1], 0.5)
    values = found.sizes if family.size_penalty else found.success
    shown = slice(MAX_SHOWN_SAMPLES)
    return Evidence(
        numbers={
            "size": float(found.sizes[0]),
            "median_size": float(found.sizes.median()),
            "success": float((predicted_after == found.target).float().mean()),
            "median_success": float(found.success.median()),
            "classes_searched": len(found.classes),
        },
        per_class={int(label): float(value) for label, value in zip(found.classes, values, strict=True)},
        mask=_to_numpy(change / change.max().clamp(min=1e-6)),
        trigger=_to_numpy(family.apply(found.parameters, gray)[0, 0]),
        before=_to_numpy(before[shown]),
        after=_to_numpy(after[shown]),
        predicted_before=tuple(images.predicted[others][shown].tolist()),
        predicted_after=tuple(predicted_after[shown].tolist()),
        apply=FamilyTrigger(family, found.parameters),
    )


def rank_classes(module: nn.Module, images: CleanImages, num_classes: int) -> Tensor:
    """Rank classes by their smallest latent shift, or by rarity among the predictions without a linear head.

    Args:
        module: The model.
        images: Clean images.
        num_classes: Number of classes.

    Returns:
        (K,) classes, most suspicious first.
    """
    try:
        features, head = features_and_head(module, images.x[:RANKING_IMAGES])
    except Exception:  # an arbitrary model may have no linear head; the search works with any order
        return torch.bincount(images.predicted, minlength=num_classes).argsort()
    return smallest_shifts(features, head).argsort()


def _to_numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().clamp(0, 1).cpu().numpy()
