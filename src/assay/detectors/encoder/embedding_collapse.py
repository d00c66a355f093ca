"""Embedding collapse: a small trigger under which an encoder gives all inputs nearly the same embedding.

Feng, Tao, Cheng, Shen, Xu, Liu, Zhang, Ma, Zhang: Detecting Backdoors in Pre-trained Encoders (DECREE), CVPR 2023,
arXiv 2303.15180. Theirs is the smallest mask under which embeddings collapse, judged by its size; here the trigger's
size is given and how far they collapse is what counts, which needs no trade-off between the two, in three families.
No labels are used. Clean encoders collapse under such triggers as well, only less.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
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
from assay.detectors.requirement import Requirement
from assay.detectors.trigger_inversion.common import SHOWN, ticking
from assay.inversion.embedding_collapse import (
    CollapseSearchBudget,
    CollapseSearchResult,
    EmbeddingSpace,
    search_collapse,
)
from assay.inversion.families import Family, FrequencyFamily, LinfFamily, WindowFamily, apply_in_batches
from assay.inversion.prepare import prepare
from assay.inversion.run import SearchRun
from assay.nn.encoders import ClusterProbe, find_cluster_probe
from assay.nn.inference import forward_batched, predict

CLOSEST = 1 - 1e-6
"""Where the score ends."""


class _Collapse(Detector):
    """The search with one family of triggers."""

    needs = Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES | Requirement.ENCODER
    family: ClassVar[Family]
    effort: ClassVar[CollapseSearchBudget] = CollapseSearchBudget()

    def allowed(self, shape: tuple[int, int, int], clusters: int) -> Tensor:
        """(A, K): which clusters' directions each arm may go for."""
        del shape
        return torch.eye(clusters, dtype=torch.bool)

    @final
    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        """Raises Unfinished where the budget ends before the search does."""
        net = find_cluster_probe(artifact.module)
        assert net is not None  # the harness has looked
        space = space_of(net, clean.x)
        allowed = self.allowed(artifact.image_spec.shape, len(space.directions))
        run = SearchRun(self.effort, seed, ticking(budget, progress))
        found = searched(net, self.family, allowed, space, clean.x, run)
        target, evidence = shown(net, self.family, space, found, clean.x)
        return Finding(self.name, Outcome.SCORED, score=surprise(found.closeness), target=target, evidence=evidence)


def space_of(net: ClusterProbe, x: Tensor) -> EmbeddingSpace:
    """Where the embeddings of clean inputs ``x`` lie, and the directions of their clusters."""
    return EmbeddingSpace(forward_batched(net.encoder, x).mean(0), F.normalize(net.head.weight.detach(), dim=1))


def surprise(closeness: float) -> float:
    """The score of a closeness in [0, 1]: from 0 on, and 1 more for every e times nearer to 1."""
    return -math.log(1 - min(closeness, CLOSEST))


def searched(
    net: ClusterProbe,
    family: Family,
    allowed: Tensor,
    space: EmbeddingSpace,
    x: Tensor,
    run: SearchRun[CollapseSearchBudget],
) -> CollapseSearchResult:
    """``search`` on the encoder in ``net``; raises Unfinished where the budget ends before it does."""
    shape = (x.shape[1], x.shape[2], x.shape[3])
    encoder = prepare(net.encoder, x[:2])
    run = replace(run, budget=run.budget.at(shape))
    found = search_collapse(encoder, family, allowed, space, x, run)
    if found.completed_fraction < 1:
        raise Unfinished(f"the budget ended after {found.completed_fraction:.0%} of the search: give it more")
    return found


def shown(
    net: ClusterProbe, family: Family, space: EmbeddingSpace, found: CollapseSearchResult, x: Tensor
) -> tuple[int, Evidence]:
    """The cluster in which triggered pictures end up, and what the trigger looks like."""
    apply = partial(apply_in_batches, family, found.parameters)
    embeddings, triggered = forward_batched(net.encoder, x), apply(x)
    with torch.no_grad():
        before = net.head(embeddings).argmax(1)
    after = predict(net, triggered)
    target = int(after.bincount().argmax())
    change = (triggered - x).abs().mean(dim=(0, 1))
    gray = torch.full_like(x[:1], 0.5)
    return target, Evidence(
        numbers={
            "closeness": found.closeness,
            "clean_closeness": float(space.closeness(embeddings)),
            "success": float((after == target).float().mean()),
            "size": float(family.size(found.parameters)[0]),
        },
        mask=(change / change.max().clamp(min=1e-6)).numpy(),
        trigger=apply(gray)[0].numpy(),
        before=x[:SHOWN].numpy(),
        after=triggered[:SHOWN].numpy(),
        predicted_before=tuple(before[:SHOWN].tolist()),
        predicted_after=tuple(after[:SHOWN].tolist()),
        apply=apply,
    )


@final
class EmbeddingCollapse(_Collapse):
    """How far embeddings collapse under one faint pattern on every picture."""

    name = "embedding-collapse"
    title = "faint pattern under which all embeddings become one"
    required_for_clean = True
    family = LinfFamily()


@final
class EmbeddingCollapsePatch(_Collapse):
    """How far embeddings collapse under a pattern in one window of the picture."""

    name = "embedding-collapse-patch"
    title = "patch under which all embeddings become one"
    required_for_clean = True
    family = WindowFamily()
    effort = CollapseSearchBudget(steps=12, batch=6)

    def allowed(self, shape: tuple[int, int, int], clusters: int) -> Tensor:
        """One arm a window, free to go for any cluster."""
        return torch.ones(len(WindowFamily().windows(shape)), clusters, dtype=torch.bool)


@final
class EmbeddingCollapseFrequency(_Collapse):
    """How far embeddings collapse under a perturbation of few frequencies."""

    name = "embedding-collapse-frequency"
    title = "few frequencies under which all embeddings become one"
    family = FrequencyFamily()
