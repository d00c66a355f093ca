"""What the detectors that reconstruct a trigger share: search, check on fresh pictures, show the trigger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.errors import Inconclusive, Unfinished
from assay.core.finding import Evidence, Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.budget import Budget
from assay.inversion.class_search import ClassSearchResult, SearchBudget, search_classes
from assay.inversion.families import Family, apply_in_batches
from assay.inversion.latent_shift import features_and_head, smallest_shifts
from assay.inversion.prepare import prepare
from assay.inversion.run import CleanImages, SearchRun
from assay.nn.inference import predict

SHOWN = 6
"""Samples in the evidence."""


@dataclass(frozen=True)
class Inversion:
    """A search with one family of triggers, as a Finding of the detector called ``name``."""

    name: str
    family: Family
    effort: SearchBudget = SearchBudget()  # noqa: RUF009 (frozen)

    def __call__(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        """Raises Inconclusive where the budget ends before the search has converged."""
        net = prepare(artifact.module, clean.x[:2])
        predicted = told_apart(predict(net, clean.x))
        ranking = rank_classes(artifact.module, clean.x, predicted, artifact.num_classes or 0)
        run = SearchRun(self.effort.at(artifact.image_spec.shape), seed, ticking(budget, progress))
        found = search_classes(net, self.family, CleanImages(clean.x, predicted), ranking, run)
        finished(found, run.budget.steps)
        return Finding(
            self.name,
            Outcome.SCORED,
            score=found.score,
            target=found.target,
            evidence=evidence(net, self.family, found, clean, predicted),
        )


def ticking(budget: Budget, progress: Progress) -> Callable[[float], bool]:
    """What a search asks with the share of its work that is done: whether there is time left."""

    def tick(share: float) -> bool:
        progress(share)
        return budget.left() > 0

    return tick


def told_apart(predicted: Tensor) -> Tensor:
    """``predicted`` (N,) as it is; raises Inconclusive where the net gives all clean samples one class."""
    if len(predicted.unique()) < 2:
        raise Inconclusive("the model predicts one class for all clean samples: nothing can be compared")
    return predicted


def finished(found: ClassSearchResult, steps: int) -> None:
    """Raises Unfinished where the budget ended before the search had taken all its ``steps``."""
    if found.steps < steps and not found.stopped_early:
        raise Unfinished(f"the budget ended after {found.steps} of {steps} steps of the search: give it more")


def evidence(net: nn.Module, family: Family, found: ClassSearchResult, clean: Split, predicted: Tensor) -> Evidence:
    """What the best trigger of ``found`` looks like and does, on pictures that the search did not check it on too."""
    others = predicted != found.target
    victims = clean.x[others]
    triggered = apply_in_batches(family, found.parameters, victims)
    said = predict(net, triggered)
    change = (triggered[:64] - victims[:64]).abs().mean(dim=(0, 1))
    gray = torch.full_like(clean.x[:1], 0.5)
    return Evidence(
        numbers={
            "size": float(found.sizes[0]),
            "median_size": float(found.sizes.median()),
            "success": float((said == found.target).float().mean()),
            "median_success": float(found.success.median()),
            "classes_searched": len(found.classes),
        },
        per_class={
            int(c): float(v)
            for c, v in zip(found.classes, found.sizes if family.size_penalty else found.success, strict=True)
        },
        mask=_array(change / change.max().clamp(min=1e-6)),
        trigger=_array(family.apply(found.parameters, gray)[0, 0]),
        before=_array(victims[:SHOWN]),
        after=_array(triggered[:SHOWN]),
        predicted_before=tuple(predicted[others][:SHOWN].tolist()),
        predicted_after=tuple(said[:SHOWN].tolist()),
        apply=partial(apply_in_batches, family, found.parameters),
    )


def rank_classes(net: nn.Module, x: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """(K,) classes by their smallest latent shift; where the net has no linear head, the rarest predicted first."""
    try:
        features, head = features_and_head(net, x[:128])
    except Exception:  # a net of foreign make without a linear head: any order will do for the search
        return torch.bincount(predicted, minlength=num_classes).argsort()
    return smallest_shifts(features, head).argsort()


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().clamp(0, 1).cpu().numpy()
