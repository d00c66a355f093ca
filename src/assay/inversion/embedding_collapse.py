"""A search for one trigger under which the embeddings of all pictures become one.

How close they come is the length of the mean of their directions, seen from the mean clean embedding: near 0 where they
point everywhere, 1 where they are one. First each arm goes for a direction in which clean embeddings lie, since a
collapse that begins from nothing follows whatever noise is largest; then those that brought them closest go on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.inversion.class_search import LARGE_IMAGE_PIXELS
from assay.inversion.families import Family, Parameters
from assay.inversion.prepare import forward_prepared

COMPARED_IMAGES = 64
"""Pictures on which arms are compared before the best go on."""

Objective = Callable[[Tensor], Tensor]
"""What arms shall make large: of the mean directions (A, D) of their triggered pictures -> (A,)."""


@dataclass(frozen=True)
class CollapseSearchBudget:
    """How much a search may do; the defaults are what the shipped null distributions were made with."""

    steps: int = 25  # of each arm towards its direction
    batch: int = 16  # pictures an arm and step, then
    finalists: int = 4
    free_steps: int = 40  # of those, wherever they come closest
    free_batch: int = 16

    def at(self, shape: tuple[int, int, int]) -> CollapseSearchBudget:
        """The effort for pictures of ``shape`` (C, H, W): where each costs 10 times as much, fewer of them."""
        if shape[1] * shape[2] <= LARGE_IMAGE_PIXELS:
            return self
        return replace(self, batch=max(3, self.batch // 2), finalists=2, free_batch=8)


@dataclass(frozen=True)
class EmbeddingSpace:
    """Where clean embeddings lie."""

    centre: Tensor  # (D,) their mean
    directions: Tensor  # (K, D) of length 1, from there: those of their clusters

    def seen(self, embeddings: Tensor) -> Tensor:
        """Directions (..., D) of embeddings (..., D), of length 1."""
        return F.normalize(embeddings.float() - self.centre, dim=-1)

    def closeness(self, embeddings: Tensor) -> Tensor:
        """(...): how close embeddings (..., N, D) are to each other."""
        return closeness(self.seen(embeddings).mean(-2))


@dataclass(frozen=True)
class CollapseSearchResult:
    """What a search found."""

    parameters: Parameters  # of the closest arm, (1, ...)
    closeness: float  # on pictures that no arm was searched on, in [0, 1]
    share: float  # of the search that was done before the time ended


def closeness(means: Tensor) -> Tensor:
    """(...): how close directions are whose means are ``means`` (..., D)."""
    return means.norm(dim=-1)


def search_collapse(
    embed: nn.Module,
    family: Family,
    allowed: Tensor,
    space: EmbeddingSpace,
    x: Tensor,
    *,
    effort: CollapseSearchBudget,
    seed: int,
    tick: Callable[[float], bool] = lambda share: True,
) -> CollapseSearchResult:
    """Search ``embed``, an encoder from ``prepare``, with one arm for each row of ``allowed`` (A, K).

    An arm goes for the closest of the directions that are allowed to it. ``x`` (N, C, H, W): clean pictures, of which
    the first half is searched on and the other compared on. ``tick`` gets the share of the work done and says whether
    there is time left.
    """

    def towards(means: Tensor) -> Tensor:
        return (means @ space.directions.T).masked_fill(~allowed, -1.0).amax(1)

    searched, held = x[: len(x) // 2], x[len(x) // 2 :]
    work = len(allowed) * effort.steps + min(effort.finalists, len(allowed)) * effort.free_steps
    run = _Run(embed, family, space, work, torch.Generator().manual_seed(seed), tick)
    arms = family.start(len(allowed), (x.shape[1], x.shape[2], x.shape[3]), run.generator)
    arms = run.climb(arms, towards, searched, effort.steps, effort.batch)
    best = closeness(run.means(arms, held[:COMPARED_IMAGES])).argsort(descending=True)[: effort.finalists]
    arms = run.climb(tuple(p[best] for p in arms), closeness, searched, effort.free_steps, effort.free_batch)
    found = closeness(run.means(arms, held))
    closest = found.argmax()[None]
    return CollapseSearchResult(tuple(p[closest] for p in arms), float(found.max()), run.done / work)


@dataclass
class _Run:
    """One search on its way."""

    embed: nn.Module
    family: Family
    space: EmbeddingSpace
    work: int  # steps times arms
    generator: torch.Generator
    tick: Callable[[float], bool]
    done: int = 0

    def climb(self, arms: Parameters, goal: Objective, x: Tensor, steps: int, batch: int) -> Parameters:
        """``arms`` after ``steps`` steps towards ``goal`` on pictures out of ``x``, fewer where the time is up."""
        free = tuple(parameter.clone().requires_grad_() for parameter in arms)
        optimizer = torch.optim.Adam(free, lr=self.family.rate, betas=(0.5, 0.9))
        for _ in range(steps):
            if not self.tick(self.done / self.work):
                break
            index = torch.randint(len(x), (batch,), generator=self.generator)
            optimizer.zero_grad()
            (-goal(self._means(free, x[index])).sum()).backward()
            optimizer.step()
            self.done += len(arms[0])
        return tuple(parameter.detach() for parameter in free)

    def means(self, arms: Parameters, x: Tensor) -> Tensor:
        """(A, D), one arm after the other: together their pictures may not fit into memory."""
        with torch.no_grad():
            return torch.cat([self._means(tuple(p[n : n + 1] for p in arms), x) for n in range(len(arms[0]))])

    def _means(self, arms: Parameters, x: Tensor) -> Tensor:
        triggered = self.family.apply(arms, x)  # (A, B, C, H, W)
        embeddings = forward_prepared(self.embed, triggered.flatten(0, 1)).unflatten(0, triggered.shape[:2])
        return self.space.seen(embeddings).mean(1)
