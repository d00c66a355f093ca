"""A whole search on one net: rank the classes cheaply, then refine the few that are left, all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assay.inversion.families import Family, Parameters
from assay.inversion.search import advance, start


@dataclass(frozen=True)
class Effort:
    """How much a search may do. The defaults are what the shipped null distributions were made with."""

    arms: int = 10  # classes that are refined
    groups: int = 12  # groups of classes in the ranking, where there are more classes than arms
    ranking_steps: int = 20
    steps: int = 80
    batch: int = 16  # pictures an arm and step


@dataclass(frozen=True)
class Hunt:
    """What a search found, for every class that it refined, the smallest trigger first."""

    classes: Tensor  # (A,) int64
    sizes: Tensor  # (A,) size of the smallest working trigger; that of no trigger found is the family's ``limit``
    found: Tensor  # (A,) bool: whether any trigger worked
    parameters: Parameters  # of the smallest, (1, ...)
    steps: int

    @property
    def target(self) -> int:
        return int(self.classes[0])

    @property
    def score(self) -> float:
        """log(median size / smallest size): 0 where all classes are alike, large where one is far too easy."""
        return float(self.sizes.median().log() - self.sizes[0].log())


def hunt(
    net: nn.Module,
    family: Family,
    x: Tensor,
    predicted: Tensor,
    ranking: Tensor,
    *,
    effort: Effort,
    seed: int,
    tick: Callable[[float], bool] = lambda share: True,
) -> Hunt:
    """Search ``net`` (from ``prepare``) for the class with the smallest trigger of ``family``.

    ``x`` (N, C, H, W) clean pictures; ``predicted`` (N,) what the net says of them; ``ranking`` (K,) classes, the most
    suspicious first. ``tick`` gets the share of the work done and says whether there is time left.
    """
    generator = torch.Generator().manual_seed(seed)
    candidates = ranking
    ranking_work = 0.0
    if len(ranking) > effort.arms:
        ranking_work = effort.groups * effort.ranking_steps / (effort.arms * effort.steps)
        candidates = _shortlist(net, family, x, predicted, ranking, effort, generator)
    arms = start(family, torch.eye(len(ranking), dtype=torch.bool)[candidates], tuple(x.shape[1:]), generator)
    whole = ranking_work + 1

    def go_on() -> bool:
        return tick((ranking_work + arms.step / effort.steps) / whole)

    advance(net, family, arms, x, predicted, steps=effort.steps, batch=effort.batch, generator=generator, tick=go_on)
    found = arms.best_size.isfinite()
    sizes = torch.where(found, arms.best_size, family.size(family.start(1, tuple(x.shape[1:]), generator)))
    order = sizes.argsort()
    return Hunt(candidates[order], sizes[order], found[order], tuple(p[order[:1]] for p in arms.best), arms.step)


def _shortlist(
    net: nn.Module,
    family: Family,
    x: Tensor,
    predicted: Tensor,
    ranking: Tensor,
    effort: Effort,
    generator: torch.Generator,
) -> Tensor:
    """``effort.arms`` classes: the first half as ranked, the others as winners of a short run over groups of classes.

    One arm a group, each free to go for its easiest class: the cost does not grow with the number of classes. Groups
    keep the restarts apart; without them every arm would end in the data's natural attractor.
    """
    sure = ranking[: effort.arms // 2]
    rest = ranking[effort.arms // 2 :]
    groups = min(effort.groups, len(rest))
    allowed = torch.zeros(groups, len(ranking), dtype=torch.bool)
    allowed[torch.arange(len(rest)) % groups, rest] = True
    arms = start(family, allowed, tuple(x.shape[1:]), generator)
    advance(net, family, arms, x, predicted, steps=effort.ranking_steps, batch=effort.batch, generator=generator)
    winners = arms.reached[arms.log_likelihood.argsort(descending=True)]
    return torch.cat([sure, winners[: effort.arms - len(sure)]])
