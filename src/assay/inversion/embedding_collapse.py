"""Trigger search for embedding collapse: one trigger, and nearly the same embedding for all images.

Collapse is measured by the norm of the mean unit embedding, centered on the mean clean embedding: near 0 for spread-out
directions, 1 for identical ones. First, each candidate pursues a direction of clean embeddings. Without a direction, a
collapse follows the largest noise. Then the best candidates continue without a direction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.inversion.families import Family, Parameters
from assay.inversion.forward import forward_prepared, is_large_image
from assay.inversion.outlier import refuse_nan
from assay.inversion.run import SearchRun

COMPARED_IMAGES = 64  # images on which candidates are compared before the best continue

# Maps the mean directions (A, D) of each candidate's triggered images to values (A,) to maximize.
Objective = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CollapseSearchBudget:
    """Size of a collapse search. The shipped null distributions were made with the defaults."""

    steps: int = 25  # of each candidate towards its direction
    batch: int = 16  # images per candidate and step
    refined: int = 4  # best candidates, continued without a direction
    free_steps: int = 40  # of those
    free_batch: int = 16

    def at(self, shape: tuple[int, int, int]) -> CollapseSearchBudget:
        """Return the budget for images of ``shape`` (C, H, W). Large images cost 10 times as much and get less."""
        if not is_large_image(shape):
            return self
        return replace(self, batch=max(3, self.batch // 2), refined=2, free_batch=8)


@dataclass(frozen=True)
class EmbeddingSpace:
    """Location of the clean embeddings."""

    center: Tensor  # (D,) their mean
    directions: Tensor  # (K, D) unit vectors from there to the clusters

    def unit_directions(self, embeddings: Tensor) -> Tensor:
        """Return the unit directions (..., D) of embeddings (..., D), seen from the center."""
        return F.normalize(embeddings.float() - self.center, dim=-1)

    def closeness(self, embeddings: Tensor) -> Tensor:
        """Return the closeness (...) of embeddings (..., N, D) to each other, in [0, 1]."""
        return closeness(self.unit_directions(embeddings).mean(-2))


@dataclass(frozen=True)
class CollapseSearchResult:
    """Result of a collapse search."""

    parameters: Parameters  # trigger of the best candidate, (1, ...)
    closeness: float  # on held-out images, in [0, 1]
    completed_fraction: float  # of the search, less than 1 if the time ended


def closeness(means: Tensor) -> Tensor:
    """Return the closeness (...) of unit directions with the means ``means`` (..., D)."""
    return means.norm(dim=-1)


def search_collapse(
    encoder: nn.Module,
    family: Family,
    allowed: Tensor,
    space: EmbeddingSpace,
    x: Tensor,
    run: SearchRun[CollapseSearchBudget],
) -> CollapseSearchResult:
    """Search for one trigger with a collapse of all embeddings.

    Args:
        encoder: Encoder from ``prepare``.
        family: Trigger family.
        allowed: (A, K) bool, directions of each candidate. A candidate pursues the closest of them.
        space: Center and cluster directions of the clean embeddings.
        x: (N, C, H, W) clean images: the first half for the search, the second half for comparison.
        run: Search budget, seed and stop callback.

    Returns:
        The trigger with the strongest collapse.
    """

    def towards(means: Tensor) -> Tensor:
        return (means @ space.directions.T).masked_fill(~allowed, -1.0).amax(1)

    budget = run.budget
    searched, held = x[: len(x) // 2], x[len(x) // 2 :]
    work = len(allowed) * budget.steps + min(budget.refined, len(allowed)) * budget.free_steps
    search = _CollapseSearch(encoder, family, space, run, work)
    parameters = family.initialize(len(allowed), (x.shape[1], x.shape[2], x.shape[3]), search.generator)
    parameters = search.climb(parameters, towards, searched, budget.steps, budget.batch)
    best = closeness(search.means(parameters, held[:COMPARED_IMAGES])).argsort(descending=True)[: budget.refined]
    refined = tuple(p[best] for p in parameters)
    refined = search.climb(refined, closeness, searched, budget.free_steps, budget.free_batch)
    found = closeness(search.means(refined, held))
    closest = found.argmax()[None]
    return CollapseSearchResult(tuple(p[closest] for p in refined), float(found.max()), search.done / work)


@dataclass
class _CollapseSearch:
    """Inputs, random generator and progress of one collapse search."""

    encoder: nn.Module
    family: Family
    space: EmbeddingSpace
    run: SearchRun[CollapseSearchBudget]
    work: int  # steps times candidates
    done: int = 0

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.run.seed)

    def climb(self, parameters: Parameters, objective: Objective, x: Tensor, steps: int, batch: int) -> Parameters:
        """Return ``parameters`` after ``steps`` steps uphill on random batches of ``x``, or fewer if the time ends."""
        free = tuple(parameter.clone().requires_grad_() for parameter in parameters)
        optimizer = torch.optim.Adam(free, lr=self.family.learning_rate, betas=(0.5, 0.9))
        for _ in range(steps):
            if not self.run.should_continue(self.done / self.work):
                break
            index = torch.randint(len(x), (batch,), generator=self.generator)
            optimizer.zero_grad()
            (-objective(self._means(free, x[index])).sum()).backward()
            optimizer.step()
            self.done += len(parameters[0])
        return tuple(parameter.detach() for parameter in free)

    def means(self, parameters: Parameters, x: Tensor) -> Tensor:
        """Return the mean directions (A, D), one candidate at a time to limit memory."""
        with torch.no_grad():
            each = range(len(parameters[0]))
            return torch.cat([self._means(tuple(p[n : n + 1] for p in parameters), x) for n in each])

    def _means(self, parameters: Parameters, x: Tensor) -> Tensor:
        triggered = self.family.apply(parameters, x)  # (A, B, C, H, W)
        embeddings = forward_prepared(self.encoder, triggered.flatten(0, 1)).unflatten(0, triggered.shape[:2])
        return refuse_nan(self.space.unit_directions(embeddings).mean(1))
