"""Embedding collapse: a small trigger under which an encoder maps all inputs to nearly the same embedding.

Feng, Tao, Cheng, Shen, Xu, Liu, Zhang, Ma, Zhang: Detecting Backdoors in Pre-trained Encoders (DECREE), CVPR 2023,
arXiv 2303.15180. DECREE searches for the smallest mask under which embeddings collapse, and scores its size. Here the
trigger's size is fixed, and the score is the extent of the collapse. No trade-off between the two is needed, in three
trigger families. No labels are used. Embeddings of clean encoders collapse under such triggers too, but less.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.core.dataset import Split
from assay.core.errors import Unfinished
from assay.core.finding import Evidence, Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.common import MAX_SHOWN_SAMPLES, continue_within
from assay.detectors.cost import Cost
from assay.detectors.requirement import Requirement
from assay.inversion.embedding_collapse import (
    CollapseSearchBudget,
    CollapseSearchResult,
    EmbeddingSpace,
    search_collapse,
)
from assay.inversion.families import Family, FamilyTrigger, FrequencyFamily, LinfFamily, WindowFamily
from assay.inversion.prepare import prepare
from assay.inversion.run import SearchRun
from assay.nn.encoders import ClusterProbe, find_cluster_probe
from assay.nn.inference import forward_batched, predict

MAX_CLOSENESS = 1 - 1e-6  # at which the score ends


class CollapseDetector(Detector):
    """Search for a collapse with one trigger family."""

    needs = Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES | Requirement.ENCODER
    family: ClassVar[Family]
    search_budget: ClassVar[CollapseSearchBudget] = CollapseSearchBudget()

    def allowed_directions(self, shape: tuple[int, int, int], clusters: int) -> Tensor:
        """Return the clusters whose directions each candidate may pursue.

        Args:
            shape: Shape (C, H, W) of the images.
            clusters: Number of clusters K.

        Returns:
            (A, K) bool for A candidates.
        """
        del shape
        return torch.eye(clusters, dtype=torch.bool)

    @final
    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        probe = find_cluster_probe(artifact.module)
        assert probe is not None  # checked by the harness
        space = embedding_space(probe, clean.x)
        allowed = self.allowed_directions(artifact.image_spec.shape, len(space.directions))
        search = SearchRun(self.search_budget, seed, continue_within(budget, progress))
        found = find_collapse(probe, self.family, allowed, space, clean.x, search)
        target, evidence = collapse_evidence(probe, self.family, space, found, clean.x)
        score = collapse_score(found.closeness)
        return Finding(self.name, Outcome.SCORED, score=score, target=target, evidence=evidence)


def embedding_space(probe: ClusterProbe, x: Tensor) -> EmbeddingSpace:
    """Return the mean embedding of clean inputs ``x``, and the directions of the clusters."""
    return EmbeddingSpace(forward_batched(probe.encoder, x).mean(0), F.normalize(probe.head.weight.detach(), dim=1))


def collapse_score(closeness: float) -> float:
    """Return the score of a closeness in [0, 1]: 0 for 0, and 1 more for each factor e by which 1 - closeness falls."""
    return -math.log(1 - min(closeness, MAX_CLOSENESS))


def find_collapse(
    probe: ClusterProbe,
    family: Family,
    allowed: Tensor,
    space: EmbeddingSpace,
    x: Tensor,
    run: SearchRun[CollapseSearchBudget],
) -> CollapseSearchResult:
    """Search for a trigger under which the embeddings of the probe's encoder collapse.

    Args:
        probe: The encoder under its cluster layer.
        family: Trigger family.
        allowed: (A, K) bool, directions of each candidate.
        space: Center and cluster directions of the clean embeddings.
        x: Clean images (N, C, H, W).
        run: Search budget for small images, seed and stop callback.

    Raises:
        Unfinished: The budget ended before the search.
    """
    run = replace(run, budget=run.budget.at((x.shape[1], x.shape[2], x.shape[3])))
    found = search_collapse(prepare(probe.encoder, x[:2]), family, allowed, space, x, run)
    if found.completed_fraction < 1:
        raise Unfinished(f"the budget ended after {found.completed_fraction:.0%} of the search: give it more")
    return found


def collapse_evidence(
    probe: ClusterProbe, family: Family, space: EmbeddingSpace, found: CollapseSearchResult, x: Tensor
) -> tuple[int, Evidence]:
    """Return effect and appearance of a trigger.

    Args:
        probe: The encoder under its cluster layer.
        family: Family of the trigger.
        space: Center and cluster directions of the clean embeddings.
        found: Result of the search.
        x: Clean images (N, C, H, W).

    Returns:
        The most frequent cluster of triggered images, and the evidence.
    """
    apply = FamilyTrigger(family, found.parameters)
    embeddings, triggered = forward_batched(probe.encoder, x), apply(x)
    with torch.no_grad():
        predicted_before = probe.head(embeddings).argmax(1)
    predicted_after = predict(probe, triggered)
    target = int(predicted_after.bincount().argmax())
    change = (triggered - x).abs().mean(dim=(0, 1))
    gray = torch.full_like(x[:1], 0.5)
    shown = slice(MAX_SHOWN_SAMPLES)
    return target, Evidence(
        numbers={
            "closeness": found.closeness,
            "clean_closeness": float(space.closeness(embeddings)),
            "success": float((predicted_after == target).float().mean()),
            "size": float(family.size(found.parameters)[0]),
        },
        mask=(change / change.max().clamp(min=1e-6)).numpy(),
        trigger=apply(gray)[0].numpy(),
        before=x[shown].numpy(),
        after=triggered[shown].numpy(),
        predicted_before=tuple(predicted_before[shown].tolist()),
        predicted_after=tuple(predicted_after[shown].tolist()),
        apply=apply,
    )


@final
class EmbeddingCollapse(CollapseDetector):
    """Extent of the collapse under one faint pattern on every image."""

    name = "embedding-collapse"
    title = "faint pattern under which all embeddings become one"
    cost = Cost(10_000)
    required_for_clean = True
    family = LinfFamily()


@final
class EmbeddingCollapsePatch(CollapseDetector):
    """Extent of the collapse under a pattern in one window of the image."""

    name = "embedding-collapse-patch"
    title = "patch under which all embeddings become one"
    cost = Cost(10_000)
    required_for_clean = True
    family = WindowFamily()
    search_budget = CollapseSearchBudget(steps=12, batch=6)

    def allowed_directions(self, shape: tuple[int, int, int], clusters: int) -> Tensor:
        """One candidate for each window, free to pursue any cluster."""
        return torch.ones(len(WindowFamily().windows(shape)), clusters, dtype=torch.bool)


@final
class EmbeddingCollapseFrequency(CollapseDetector):
    """Extent of the collapse under a perturbation of few frequencies."""

    name = "embedding-collapse-frequency"
    title = "few frequencies under which all embeddings become one"
    cost = Cost(10_000)
    family = FrequencyFamily()
