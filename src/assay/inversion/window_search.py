"""Trigger search with a pattern in one window: first over all windows, then over classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.inversion.class_search import ClassSearchResult, OutcomeFunction, class_logits, trigger_effects
from assay.inversion.families import WindowFamily
from assay.inversion.forward import is_large_image
from assay.inversion.optimizer import Candidates, Steps, advance, initialize, select
from assay.inversion.outlier import outlier_score
from assay.inversion.run import CleanImages, SearchRun

INITIAL_PATTERN_SCALE = 0.3  # fraction of the window's pattern that a class starts from: saturated pixels lose gradient
SCREENED_IMAGES = 8  # images on which all windows are compared
COMPARED_IMAGES = 24  # images on which the leading windows are compared again


@dataclass(frozen=True)
class WindowSearchBudget:
    """Size of a window search. The shipped reference scores come from a longer search (docs/limits.md)."""

    overlap: bool = True  # adds a window between any two adjacent windows
    screening_steps: int = 6  # of all windows; only the best windows go on
    screening_batch: int = 3  # images per window and step
    windows_per_class: int = 2  # of each of the easiest classes, that go on
    window_steps: int = 10  # of the best windows, screening included
    window_batch: int = 6  # images per window and step after the screening
    classes: int = 8  # classes searched after the windows
    class_steps: int = 20
    class_batch: int = 16  # images per class and step
    refined: int = 4  # easiest of those classes; all that a score compares, so that refinement alone gives no outlier
    final_steps: int = 0  # of the refined classes
    checked: int = 128  # images on which every final trigger is checked
    min_log_odds: float = float("-inf")  # the search ends if no window gives a class higher log odds than this
    # The search ends after the windows if several classes have positive log odds, with a lower outlier score than this.
    min_outlier_score: float = 0.0

    def at(self, shape: tuple[int, int, int]) -> WindowSearchBudget:
        """Return the budget for images of ``shape`` (C, H, W). Large images cost 50 times as much and get less."""
        if not is_large_image(shape):
            return self
        fewer = replace(self, overlap=False, window_steps=8, window_batch=4, classes=5, class_steps=12, class_batch=6)
        return replace(fewer, final_steps=self.final_steps // 2, checked=48)

    @property
    def steps(self) -> int:
        """Number of steps of all stages together."""
        return self.window_steps + self.class_steps + self.final_steps

    def work(self, windows: int, num_classes: int) -> int:
        """Return the number of images times steps of the whole search, without its comparisons."""
        classes = min(self.classes, num_classes)
        leading = min(windows, self.windows_per_class * classes)
        screened = windows * self.screening_steps * self.screening_batch
        led = leading * (self.window_steps - self.screening_steps) * self.window_batch
        class_steps = classes * self.class_steps + min(self.refined, classes) * self.final_steps
        return screened + led + self.class_batch * class_steps


def search_windows(
    model: nn.Module,
    images: CleanImages,
    num_classes: int,
    run: SearchRun[WindowSearchBudget],
    *,
    extra_outcomes: int = 0,
    outcomes: OutcomeFunction | None = None,
) -> tuple[WindowFamily, ClassSearchResult]:
    """Search for the class most reachable by a pattern in one window.

    Args:
        model: Model from ``prepare``.
        images: Clean images.
        num_classes: Number of classes.
        run: Search budget, seed and stop callback.
        extra_outcomes: Number of outputs of ``model`` after its classes. No trigger targets them.
        outcomes: Outcome function for the comparison of the final patterns. None: the logits of ``model``.

    Returns:
        The trigger family and the result. ``steps`` of the result is less than the budget's if the time ended.
    """
    budget = run.budget
    search = _WindowSearch(model, images, num_classes, run, extra_outcomes, outcomes or class_logits(model))
    free = search.initialize(torch.ones(len(search.family.windows(images.shape)), num_classes, dtype=torch.bool))
    search.advance(free, budget.screening_steps, budget.screening_batch)
    compared = search.compare(free, SCREENED_IMAGES)
    # Not if the time ended before the last step: then the search did not stop by itself.
    if free.step == budget.screening_steps and not float(compared.odds.max()) >= budget.min_log_odds:
        candidates, effects = search.easiest_of(free, compared)
        return search.family, search.result(candidates, effects, free.step, stopped_early=True)
    leading = search.leading_windows(free, compared)
    search.advance(leading, budget.window_steps - leading.step, budget.window_batch)
    candidates, effects = search.easiest_of(leading, search.compare(leading, COMPARED_IMAGES))
    if leading.step == budget.window_steps and not search.is_promising(effects.odds):
        return search.family, search.result(candidates, effects, leading.step, stopped_early=True)
    candidates.parameters = (INITIAL_PATTERN_SCALE * candidates.parameters[0], candidates.parameters[1])
    search.advance(candidates, budget.class_steps, budget.class_batch)
    effects = search.refine(candidates, search.evaluate(candidates))
    return search.family, search.result(candidates, effects, leading.step + candidates.step)


class _Effects(NamedTuple):
    """Effect of each candidate's trigger on its class (A,), or on all classes (A, K)."""

    success: Tensor  # fraction of the images of other classes
    odds: Tensor  # mean log odds


@dataclass
class _WindowSearch:
    """Inputs, random generator and progress of one window search."""

    model: nn.Module
    images: CleanImages
    num_classes: int
    run: SearchRun[WindowSearchBudget]
    extra_outcomes: int
    outcomes: OutcomeFunction
    done: int = 0  # images times steps

    def __post_init__(self) -> None:
        self.family = WindowFamily(overlap=self.run.budget.overlap)
        self.generator = torch.Generator().manual_seed(self.run.seed)
        self.work = self.run.budget.work(len(self.family.windows(self.images.shape)), self.num_classes)

    def initialize(self, allowed: Tensor) -> Candidates:
        """Create candidates with the target classes ``allowed`` (A, K)."""
        allowed = F.pad(allowed, (0, self.extra_outcomes))
        return initialize(self.family, allowed, self.images.shape, self.generator)

    def advance(self, candidates: Candidates, count: int, batch_size: int) -> None:
        """Take ``count`` steps with ``candidates``, in place, or fewer if the time ends."""

        def should_continue() -> bool:
            self.done += len(candidates.cost) * batch_size
            return self.run.should_continue(min(1.0, self.done / self.work))

        steps = Steps(count, batch_size, self.generator, should_continue)
        advance(self.model, self.family, candidates, self.images, steps)

    def leading_windows(self, free: Candidates, compared: _Effects) -> Candidates:
        """Select the best windows of each of the easiest classes.

        Args:
            free: One candidate per window, free to pursue any class.
            compared: Their effects on all classes, (A, K).
        """
        best = compared.odds.topk(min(self.run.budget.windows_per_class, len(compared.odds)), dim=0).indices  # (W, K)
        classes = compared.odds.amax(0).topk(min(self.run.budget.classes, self.num_classes)).indices
        return select(free, best[:, classes].unique())

    def easiest_of(self, free: Candidates, compared: _Effects) -> tuple[Candidates, _Effects]:
        """Select the easiest classes by the effects of all triggers.

        Args:
            free: One candidate per window, free to pursue any class.
            compared: Their effects on all classes, (A, K).

        Returns:
            One candidate for each of the easiest classes, in its best window, and their effects; easiest class first.
        """
        classes = compared.odds.amax(0).argsort(descending=True)[: self.run.budget.classes]
        first = compared.odds.argmax(0)[classes]
        candidates = self.initialize(torch.eye(self.num_classes, dtype=torch.bool)[classes])
        candidates.parameters = tuple(p[first] for p in free.parameters)
        return candidates, _Effects(compared.success[first, classes], compared.odds[first, classes])

    def is_promising(self, odds: Tensor) -> bool:
        """Return whether the search goes on after the windows, by the log odds (A,) of the easiest classes, sorted."""
        if not float(odds[0]) >= self.run.budget.min_log_odds:
            return False
        positive = odds.clamp(min=0)
        return not positive[1:2].any() or outlier_score(positive) >= self.run.budget.min_outlier_score

    def compare(self, candidates: Candidates, count: int) -> _Effects:
        """Return the effects (A, K) of all triggers on all classes, on the first ``count`` images."""
        images = self.images.first(count)
        effects = trigger_effects(class_logits(self.model), self.family, candidates.parameters, images)
        return _Effects(*(values[:, : self.num_classes] for values in effects))

    def refine(self, candidates: Candidates, effects: _Effects) -> _Effects:
        """Run the last stage on the easiest classes, in place, and return the new effects of all candidates.

        Args:
            candidates: The candidates of all searched classes.
            effects: Their effects so far.
        """
        budget = self.run.budget
        if not budget.final_steps or candidates.step < budget.class_steps:  # the time ended
            return effects
        easiest = effects.odds.argsort(descending=True)[: budget.refined]
        final = select(candidates, easiest)
        self.advance(final, budget.final_steps, budget.class_batch)
        pairs = (
            *zip(candidates.parameters, final.parameters, strict=True),
            *zip(effects, self.evaluate(final), strict=True),
        )
        for target, refined in pairs:
            target[easiest] = refined
        candidates.step = final.step
        return effects

    def evaluate(self, candidates: Candidates) -> _Effects:
        """Measure each candidate's trigger on many images."""
        images = self.images.first(self.run.budget.checked)
        effects = trigger_effects(self.outcomes, self.family, candidates.parameters, images)
        targets = candidates.allowed.int().argmax(1)[:, None]
        return _Effects(*(value.gather(1, targets)[:, 0] for value in effects))

    def result(
        self, candidates: Candidates, effects: _Effects, steps: int, *, stopped_early: bool = False
    ) -> ClassSearchResult:
        """Return the result for ``candidates``, most reachable class first."""
        order = effects.odds.argsort(descending=True)
        return ClassSearchResult(
            classes=candidates.allowed.int().argmax(1)[order],
            reachability=effects.odds[order],
            sizes=self.family.size(candidates.parameters)[order],
            success=effects.success[order],
            each=tuple(p[order] for p in candidates.parameters),
            steps=steps,
            stopped_early=stopped_early,
        )
