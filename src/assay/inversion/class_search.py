"""Trigger search over all classes: rank the classes cheaply, then refine the best few together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.inversion.families import Family, Parameters
from assay.inversion.forward import forward_prepared, is_large_image
from assay.inversion.optimizer import Candidates, Steps, advance, initialize, select
from assay.inversion.outlier import log_odds, mean_over_others, outlier_score, refuse_nan
from assay.inversion.run import CleanImages, SearchRun

# Maps triggered images (N, C, H, W) and their clean predictions (N,) to outcome logits (N, K).
OutcomeFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class SearchBudget:
    """Size of a class search; each detector chooses its own."""

    candidates: int = 10  # classes in the screening
    screening_steps: int = 20
    refined: int = 5  # best classes of the screening, refined to the end; the score compares neighbors only
    groups: int = 12  # groups of classes in the ranking, if there are more classes than candidates
    ranking_steps: int = 20
    steps: int = 60  # of the refined classes, screening included
    rank_by_likelihood: bool = False  # refine the candidates that move most images, not those with small triggers
    min_success: float = 0.0  # the search ends after the screening if no candidate exceeds this success rate
    batch: int = 16  # images per candidate and step
    checked: int = 128  # images on which every final trigger is checked

    def at(self, shape: tuple[int, int, int]) -> SearchBudget:
        """Return the budget for images of ``shape`` (C, H, W). Large images cost 50 times as much and get less."""
        if not is_large_image(shape):
            return self
        return replace(self, candidates=6, refined=4, groups=8, ranking_steps=10, batch=6, checked=48)


@dataclass(frozen=True)
class ClassSearchResult:
    """Result for every refined class, most reachable class first."""

    classes: Tensor  # (A,) int64
    reachability: Tensor  # (A,) minus the log size; for bounded families the mean log odds
    sizes: Tensor  # (A,) size of the smallest working trigger; size of an untrained trigger if none worked
    success: Tensor  # (A,) fraction of the checked images that get the class
    each: Parameters  # the triggers, (A, ...)
    steps: int
    stopped_early: bool = False  # no class exceeded the minimum after the screening

    def of(self, place: int) -> ClassSearchResult:
        """Return the result for the class at index ``place`` alone."""
        one = slice(place, place + 1)
        each = tuple(p[one] for p in self.each)
        return replace(self, classes=self.classes[one], reachability=self.reachability[one], sizes=self.sizes[one],
                       success=self.success[one], each=each)  # fmt: skip

    @property
    def parameters(self) -> Parameters:
        """Trigger of the most reachable class, (1, ...)."""
        return tuple(p[:1] for p in self.each)

    @property
    def target(self) -> int:
        """Most reachable class."""
        return int(self.classes[0])

    @property
    def score(self) -> float:
        """Outlier score of the most reachable classes; 0 if the search stopped early."""
        return 0.0 if self.stopped_early else outlier_score(self.reachability)


def search_classes(
    model: nn.Module,
    family: Family,
    images: CleanImages,
    ranking: Tensor,
    run: SearchRun[SearchBudget],
    *,
    extra_outcomes: int = 0,
) -> ClassSearchResult:
    """Search for the class most reachable by a trigger of ``family``.

    Args:
        model: Model from ``prepare``.
        family: Trigger family.
        images: Clean images.
        ranking: (K,) classes, most suspicious first.
        run: Search budget, seed and stop callback.
        extra_outcomes: Number of outputs of ``model`` after its classes. No trigger targets them.

    Returns:
        Triggers and reachability of the refined classes.
    """
    search = _ClassSearch(model, family, images, run, extra_outcomes, len(ranking))
    budget = run.budget
    shortlist = ranking
    if len(ranking) > budget.candidates:
        groups = search.initialize(_groups(ranking, budget))
        search.advance(groups, budget.ranking_steps)
        shortlist = _shortlist(ranking, groups, budget)
    candidates = search.initialize(torch.eye(len(ranking), dtype=torch.bool)[shortlist])
    screening = min(budget.screening_steps, budget.steps)
    search.advance(candidates, screening)
    screened = candidates.step == screening  # False if the time ended first: then the search did not stop by itself
    stopped_early = screened and bool(candidates.success.max() < budget.min_success)
    by_likelihood = budget.rank_by_likelihood or family.size_penalty == 0
    if by_likelihood:
        promising_first = candidates.log_likelihood.argsort(descending=True)  # (A,)
    else:
        # The size penalty has grown with every success so far. The size still decreases, and is a worse criterion.
        promising_first = (candidates.cost.log() - 0.01 * candidates.level).argsort(descending=True)
    candidates = select(candidates, promising_first[: budget.refined])
    if not stopped_early:
        search.advance(candidates, budget.steps - screening)
    return replace(search.evaluate(candidates), stopped_early=stopped_early)


@dataclass
class _ClassSearch:
    """Inputs, random generator and progress of one class search."""

    model: nn.Module
    family: Family
    images: CleanImages
    run: SearchRun[SearchBudget]
    extra_outcomes: int
    num_classes: int
    done: int = 0  # steps times candidates

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.run.seed)
        self.work = _total_work(self.run.budget, self.num_classes)

    def initialize(self, allowed: Tensor) -> Candidates:
        """Create candidates with the target classes ``allowed`` (A, K)."""
        allowed = F.pad(allowed, (0, self.extra_outcomes))
        return initialize(self.family, allowed, self.images.shape, self.generator)

    def advance(self, candidates: Candidates, count: int) -> None:
        """Take ``count`` steps with ``candidates``, in place, or fewer if the time ends."""

        def should_continue() -> bool:
            self.done += len(candidates.cost)
            return self.run.should_continue(min(1.0, self.done / self.work))

        steps = Steps(count, self.run.budget.batch, self.generator, should_continue)
        advance(self.model, self.family, candidates, self.images, steps)

    def evaluate(self, candidates: Candidates) -> ClassSearchResult:
        """Check the triggers of ``candidates`` and sort them by reachability."""
        bounded = self.family.size_penalty == 0
        untrained = self.family.size(self.family.initialize(1, self.images.shape, self.generator))
        targets = candidates.allowed.int().argmax(1)
        worked = candidates.best_size.isfinite()
        sizes = torch.where(worked, candidates.best_size, untrained)
        final = candidates.parameters if bounded else candidates.best
        checked = self.images.first(self.run.budget.checked)
        effects = trigger_effects(class_logits(self.model), self.family, final, checked)
        success, odds = (value.gather(1, targets[:, None])[:, 0] for value in effects)
        # A candidate without a working size may have converged to a small size that does not work.
        level = torch.where(worked, candidates.level, torch.maximum(candidates.level, untrained.log()))
        reachability = odds if bounded else -level
        order = reachability.argsort(descending=True)
        each = tuple(p[order] for p in final)
        return ClassSearchResult(
            targets[order], reachability[order], sizes[order], success[order], each, candidates.step
        )


def _total_work(budget: SearchBudget, classes: int) -> int:
    """Return the number of steps times candidates of a whole search."""
    grouped = min(budget.groups, classes - budget.candidates // 2) if classes > budget.candidates else 0
    screening = min(budget.screening_steps, budget.steps)
    final = min(budget.refined, budget.candidates, classes) * (budget.steps - screening)
    return grouped * budget.ranking_steps + min(budget.candidates, classes) * screening + final


def class_logits(model: nn.Module) -> OutcomeFunction:
    """Return the logits of ``model`` (from ``prepare``) as an outcome function."""
    return lambda triggered, predicted: forward_prepared(model, triggered)


def trigger_effects(
    outcomes: OutcomeFunction, family: Family, parameters: Parameters, images: CleanImages
) -> tuple[Tensor, Tensor]:
    """Measure the effect of each candidate's trigger.

    Args:
        outcomes: Outcome logits of triggered images.
        family: Trigger family.
        parameters: Triggers, (A, ...).
        images: Clean images.

    Returns:
        Fraction of the images of other classes that each trigger sends to each class (A, K), and the mean log odds of
        that class (A, K).
    """
    fractions, odds = [], []
    with torch.no_grad():
        for index in range(len(parameters[0])):
            triggered = family.apply(tuple(p[index : index + 1] for p in parameters), images.x)[0]
            logits = outcomes(triggered, images.predicted)
            hit = F.one_hot(logits.argmax(1), logits.shape[1]).float()
            fractions.append(mean_over_others(hit, images.predicted))
            odds.append(mean_over_others(refuse_nan(log_odds(logits)), images.predicted))
    return torch.stack(fractions), torch.stack(odds)


def _groups(ranking: Tensor, budget: SearchBudget) -> Tensor:
    """Distribute the lower-ranked classes over ``budget.groups`` groups.

    Each group has one candidate, free to pursue its easiest class, so the cost does not grow with the number of
    classes. Without groups, every candidate would converge to the same natural attractor of the data.

    Args:
        ranking: (K,) classes, most suspicious first.
        budget: Search budget.

    Returns:
        (G, K) bool, classes of each group.
    """
    rest = ranking[budget.candidates // 2 :]
    groups = min(budget.groups, len(rest))
    allowed = torch.zeros(groups, len(ranking), dtype=torch.bool)
    allowed[torch.arange(len(rest)) % groups, rest] = True
    return allowed


def _shortlist(ranking: Tensor, groups: Candidates, budget: SearchBudget) -> Tensor:
    """Return ``budget.candidates`` classes: half by rank, half as winners of the short search over ``groups``."""
    ranked = ranking[: budget.candidates // 2]
    winners = groups.reached[groups.log_likelihood.argsort(descending=True)]
    return torch.cat([ranked, winners[: budget.candidates - len(ranked)]])
