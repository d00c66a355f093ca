"""A whole search on one net: rank the classes cheaply, then refine the few that are left, all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.core.errors import Unfinished
from assay.inversion.families import Family, Parameters
from assay.inversion.optimizer import Candidates, advance, initialize, select
from assay.inversion.outlier import log_odds, mean_over_others, outlier_score
from assay.inversion.prepare import forward_prepared

LARGE_IMAGE_PIXELS = 64 * 64
"""Pictures of more pixels than this are searched with less effort."""

CHECKED_IMAGES = 128
"""Pictures on which every arm's trigger is checked in the end."""


OutcomeFunction = Callable[[Tensor, Tensor], Tensor]
"""What triggered pictures (N, C, H, W) come to that were predicted (N,) without: logits (N, K) of the outcomes."""


@dataclass(frozen=True)
class SearchBudget:
    """How much a search may do; each detector says what it needs."""

    arms: int = 10  # classes that are searched for a while
    screening_steps: int = 20  # that while
    finalists: int = 5  # of them, searched to the end: a gap shows between neighbours, the rest need not be followed
    groups: int = 12  # groups of classes in the ranking, where there are more classes than arms
    ranking_steps: int = 20
    steps: int = 60  # of the finalists, screening included
    likeliest: bool = False  # finalists are the arms that move most pictures; False: those with the smallest triggers
    hope: float = 0.0  # where no arm moves more than this share of the pictures after screening, the search is over
    batch: int = 16  # pictures an arm and step

    def at(self, shape: tuple[int, int, int]) -> SearchBudget:
        """The effort for pictures of ``shape`` (C, H, W): where each costs 50 times as much, fewer of them."""
        if shape[1] * shape[2] <= LARGE_IMAGE_PIXELS:
            return self
        return replace(self, arms=6, finalists=4, groups=8, ranking_steps=15, batch=6)


@dataclass(frozen=True)
class ClassSearchResult:
    """What a search found, for every class that it refined, the easiest first."""

    classes: Tensor  # (A,) int64
    ease: Tensor  # (A,) how easy the class is to reach: minus the log size; where bounded, its mean log odds
    sizes: Tensor  # (A,) size of the smallest working trigger; of a fresh one where none worked
    success: Tensor  # (A,) share of the checked pictures that get the class
    each: Parameters  # the triggers, (A, ...)
    steps: int
    hopeless: bool = False  # the search ended early, because no class moved

    def of(self, place: int) -> ClassSearchResult:
        """What was found for the class at ``place`` alone."""
        one = slice(place, place + 1)
        each = tuple(p[one] for p in self.each)
        return replace(self, classes=self.classes[one], ease=self.ease[one], sizes=self.sizes[one],
                       success=self.success[one], each=each)  # fmt: skip

    @property
    def parameters(self) -> Parameters:
        """Of the easiest, (1, ...)."""
        return tuple(p[:1] for p in self.each)

    @property
    def target(self) -> int:
        return int(self.classes[0])

    @property
    def score(self) -> float:
        """How far the easiest class stands out, 0 where all are alike or none moves."""
        return 0.0 if self.hopeless else outlier_score(self.ease)


def search_classes(
    net: nn.Module,
    family: Family,
    x: Tensor,
    predicted: Tensor,
    ranking: Tensor,
    *,
    effort: SearchBudget,
    seed: int,
    outcomes_beside: int = 0,
    tick: Callable[[float], bool] = lambda share: True,
) -> ClassSearchResult:
    """Search ``net`` (from ``prepare``) for the class that a trigger of ``family`` reaches most easily.

    ``x`` (N, C, H, W) clean pictures; ``predicted`` (N,) what the net says of them; ``ranking`` (K,) classes, the most
    suspicious first. ``outcomes_beside``: how many outcomes ``net`` has behind its classes, which no trigger goes for.
    ``tick`` gets the share of the work done and says whether there is time left.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (x.shape[1], x.shape[2], x.shape[3])
    work, done = _work(effort, len(ranking)), 0

    def search(arms: Candidates, steps: int) -> None:
        def go_on() -> bool:
            nonlocal done
            done += len(arms.cost)
            return tick(min(1.0, done / work))

        advance(net, family, arms, x, predicted, steps=steps, batch=effort.batch, generator=generator, tick=go_on)

    candidates = ranking
    if len(ranking) > effort.arms:
        groups = initialize(family, F.pad(_groups(ranking, effort), (0, outcomes_beside)), shape, generator)
        search(groups, effort.ranking_steps)
        candidates = _shortlist(ranking, groups, effort)
    single = F.pad(torch.eye(len(ranking), dtype=torch.bool), (0, outcomes_beside))
    arms = initialize(family, single[candidates], shape, generator)
    screening = min(effort.screening_steps, effort.steps)
    search(arms, screening)
    hopeless = arms.step == screening and bool(arms.success.max() < effort.hope)  # not where the time was up
    arms = select(arms, _leaders(arms, likeliest=effort.likeliest or family.pressure == 0)[: effort.finalists])
    if not hopeless:
        search(arms, effort.steps - screening)
    fresh = family.size(family.start(1, shape, generator))
    return replace(_found(net, family, arms, fresh, x[:CHECKED_IMAGES], predicted[:CHECKED_IMAGES]), hopeless=hopeless)


def _found(
    net: nn.Module, family: Family, arms: Candidates, fresh: Tensor, x: Tensor, predicted: Tensor
) -> ClassSearchResult:
    """What ``arms`` have come to, checked on ``x``; ``fresh`` (1,) is the size of a trigger before any search."""
    bounded = family.pressure == 0
    candidates = arms.allowed.int().argmax(1)
    worked = arms.best_size.isfinite()
    sizes = torch.where(worked, arms.best_size, fresh)
    final = arms.parameters if bounded else arms.best
    reached = trigger_effects(class_logits(net), family, final, x, predicted)
    success, odds = (value.gather(1, candidates[:, None])[:, 0] for value in reached)
    # Where no size worked, the arm may have come to rest at a small one that does not work.
    level = torch.where(worked, arms.level, torch.maximum(arms.level, fresh.log()))
    ease = odds if bounded else -level
    order = ease.argsort(descending=True)
    each = tuple(p[order] for p in final)
    return ClassSearchResult(candidates[order], ease[order], sizes[order], success[order], each, arms.step)


def _work(effort: SearchBudget, classes: int) -> int:
    """Steps times arms of the whole hunt."""
    grouped = min(effort.groups, classes - effort.arms // 2) if classes > effort.arms else 0
    screening = min(effort.screening_steps, effort.steps)
    final = min(effort.finalists, effort.arms, classes) * (effort.steps - screening)
    return grouped * effort.ranking_steps + min(effort.arms, classes) * screening + final


def _leaders(arms: Candidates, *, likeliest: bool) -> Tensor:
    """(A,) arms, the most promising first.

    The weight of the size has risen with every success so far: it knows more than the size, which is still falling.
    """
    if likeliest:
        return arms.log_likelihood.argsort(descending=True)
    return (arms.cost.log() - 0.01 * arms.level).argsort(descending=True)


def require_finite(odds: Tensor) -> Tensor:
    """``odds`` as they are; raises Unfinished where the net gave no number, which is neither clean nor not."""
    if odds.isnan().any():
        raise Unfinished(
            "the model answers NaN or infinity once a pattern is on the picture: nobody knows what it hides"
        )
    return odds


def class_logits(net: nn.Module) -> OutcomeFunction:
    """By what ``net`` (from ``prepare``) says."""
    return lambda triggered, predicted: forward_prepared(net, triggered)


def trigger_effects(
    check: OutcomeFunction, family: Family, parameters: Parameters, x: Tensor, predicted: Tensor
) -> tuple[Tensor, Tensor]:
    """What each arm's trigger does to ``x`` (N, C, H, W), predicted (N,) without it, by ``check``.

    Share of the pictures of other classes that it sends to each class (A, K), and its mean log odds there (A, K).
    """
    shares, odds = [], []
    with torch.no_grad():
        for arm in range(len(parameters[0])):
            triggered = family.apply(tuple(p[arm : arm + 1] for p in parameters), x)[0]
            logits = check(triggered, predicted)
            hit = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()
            shares.append(mean_over_others(hit, predicted))
            odds.append(mean_over_others(require_finite(log_odds(logits)), predicted))
    return torch.stack(shares), torch.stack(odds)


def _groups(ranking: Tensor, effort: SearchBudget) -> Tensor:
    """(G, K) bool: the classes that ``ranking`` (K,) does not put first, dealt out over ``effort.groups`` groups.

    One arm a group, each free to go for its easiest class: the cost does not grow with the number of classes. Groups
    keep the restarts apart; without them every arm would end in the data's natural attractor.
    """
    rest = ranking[effort.arms // 2 :]
    groups = min(effort.groups, len(rest))
    allowed = torch.zeros(groups, len(ranking), dtype=torch.bool)
    allowed[torch.arange(len(rest)) % groups, rest] = True
    return allowed


def _shortlist(ranking: Tensor, groups: Candidates, effort: SearchBudget) -> Tensor:
    """``effort.arms`` classes: the first half as ranked, the others as winners of a short run over ``groups``."""
    sure = ranking[: effort.arms // 2]
    winners = groups.reached[groups.log_likelihood.argsort(descending=True)]
    return torch.cat([sure, winners[: effort.arms - len(sure)]])
