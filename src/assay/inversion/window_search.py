"""A search through windows: what can a pattern at one place do? First for every window, then for every class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.inversion.class_search import (
    CHECKED_IMAGES,
    LARGE_IMAGE_PIXELS,
    ClassSearchResult,
    OutcomeFunction,
    class_logits,
    trigger_effects,
)
from assay.inversion.families import WindowFamily
from assay.inversion.optimizer import Candidates, advance, initialize, select

INITIAL_PATTERN_SCALE = 0.3
"""How much of its window's first pattern a class starts from: what is saturated has no gradient left."""

COMPARED_IMAGES = 24
"""Pictures on which the windows are compared."""


@dataclass(frozen=True)
class WindowSearchBudget:
    """How much the search may do. The defaults are what the shipped null distributions were made with."""

    overlap: bool = True  # whether a window lies between any two that touch
    window_steps: int = 10
    window_batch: int = 6  # pictures a window and step
    classes: int = 8  # that are searched after the windows
    class_steps: int = 20
    class_batch: int = 16
    finalists: int = 4  # the easiest of those, searched on: all that a score compares, or they would stand out by it
    final_steps: int = 0
    hope: float = float("-inf")  # where no window gives a class higher log odds than this, the search is over

    def at(self, shape: tuple[int, int, int]) -> WindowSearchBudget:
        """The effort for pictures of ``shape`` (C, H, W): where each costs 50 times as much, fewer of them."""
        if shape[1] * shape[2] <= LARGE_IMAGE_PIXELS:
            return self
        fewer = replace(self, overlap=False, window_steps=8, window_batch=4, classes=5, class_steps=12, class_batch=6)
        return replace(fewer, final_steps=self.final_steps // 2)

    @property
    def steps(self) -> int:
        """Of the whole search, one stage after another."""
        return self.window_steps + self.class_steps + self.final_steps

    def work(self, windows: int, num_classes: int) -> int:
        """Pictures times steps of the whole search, less what its comparisons take."""
        classes = min(self.classes, num_classes)
        single = classes * self.class_steps + min(self.finalists, classes) * self.final_steps
        return windows * self.window_batch * self.window_steps + self.class_batch * single


def search_windows(
    net: nn.Module,
    x: Tensor,
    predicted: Tensor,
    num_classes: int,
    *,
    effort: WindowSearchBudget,
    seed: int,
    outcomes_beside: int = 0,
    check: OutcomeFunction | None = None,
    tick: Callable[[float], bool] = lambda share: True,
) -> tuple[WindowFamily, ClassSearchResult]:
    """Search ``net`` (from ``prepare``) for the class that a pattern in one window reaches most easily.

    ``x`` (N, C, H, W) clean pictures; ``predicted`` (N,) what the net says of them. ``outcomes_beside``: how many
    outcomes ``net`` has behind its classes, which no trigger goes for. ``check``: what the finished patterns are
    compared by; None: by ``net``. ``tick`` gets the share of the work done and says whether there is time left; where
    there is not, ``steps`` of the Hunt is less than the effort's.
    """
    search = _Search(net, x, predicted, num_classes, effort, seed, outcomes_beside, check or class_logits(net), tick)
    free = search.fresh(torch.ones(len(search.family.windows(search.shape)), num_classes, dtype=torch.bool))
    search.advance(free, effort.window_steps, effort.window_batch)
    arms, moved = search.singled_out(free)
    hopeless = free.step == effort.window_steps and not moved >= effort.hope  # not where the time was up
    if not hopeless:
        arms.parameters = (INITIAL_PATTERN_SCALE * arms.parameters[0], arms.parameters[1])
        search.advance(arms, effort.class_steps, effort.class_batch)
        search.advance_easiest(arms)
    success, odds = search.compared(arms)
    order = odds.argsort(descending=True)
    each = tuple(p[order] for p in arms.parameters)
    classes, sizes = arms.allowed.int().argmax(1)[order], search.family.size(arms.parameters)[order]
    found = ClassSearchResult(
        classes, odds[order], sizes, success[order], each, free.step + arms.step, hopeless=hopeless
    )
    return search.family, found


@dataclass
class _Search:
    """What the stages of one search share."""

    net: nn.Module
    x: Tensor
    predicted: Tensor
    num_classes: int
    effort: WindowSearchBudget
    seed: InitVar[int]
    outcomes_beside: int
    check: OutcomeFunction
    tick: Callable[[float], bool]
    done: int = 0  # of the work

    def __post_init__(self, seed: int) -> None:
        self.family = WindowFamily(overlap=self.effort.overlap)
        self.shape = (self.x.shape[1], self.x.shape[2], self.x.shape[3])
        self.generator = torch.Generator().manual_seed(seed)
        self.work = self.effort.work(len(self.family.windows(self.shape)), self.num_classes)

    def fresh(self, allowed: Tensor) -> Candidates:
        """Arms, each free to go for the classes that ``allowed`` (A, K) gives it."""
        return initialize(self.family, F.pad(allowed, (0, self.outcomes_beside)), self.shape, self.generator)

    def advance(self, arms: Candidates, steps: int, batch: int) -> None:
        def go_on() -> bool:
            self.done += len(arms.cost) * batch
            return self.tick(min(1.0, self.done / self.work))

        x, predicted, generator = self.x, self.predicted, self.generator
        advance(self.net, self.family, arms, x, predicted, steps=steps, batch=batch, generator=generator, tick=go_on)

    def singled_out(self, free: Candidates) -> tuple[Candidates, float]:
        """Of the arms for windows one for each of the easiest classes, where it came furthest; and how far any came."""
        x, predicted = self.x[:COMPARED_IMAGES], self.predicted[:COMPARED_IMAGES]
        _, ease = trigger_effects(class_logits(self.net), self.family, free.parameters, x, predicted)  # (M, K)
        ease = ease[:, : self.num_classes]
        classes = ease.amax(0).argsort(descending=True)[: self.effort.classes]
        arms = self.fresh(torch.eye(self.num_classes, dtype=torch.bool)[classes])
        arms.parameters = tuple(p[ease.argmax(0)[classes]] for p in free.parameters)
        return arms, float(ease.max())

    def advance_easiest(self, arms: Candidates) -> None:
        """The last stage, in place: what is nearly there gets there."""
        if not self.effort.final_steps or arms.step < self.effort.class_steps:  # the time was up
            return
        _, odds = self.compared(arms)
        easiest = odds.argsort(descending=True)[: self.effort.finalists]
        final = select(arms, easiest)
        self.advance(final, self.effort.final_steps, self.effort.class_batch)
        for all_of, part in zip(arms.parameters, final.parameters, strict=True):
            all_of[easiest] = part
        arms.step = final.step

    def compared(self, arms: Candidates) -> tuple[Tensor, Tensor]:
        """The share of the pictures that each arm sends to its class (A,), and its mean log odds there (A,)."""
        x, predicted = self.x[:CHECKED_IMAGES], self.predicted[:CHECKED_IMAGES]
        both = trigger_effects(self.check, self.family, arms.parameters, x, predicted)
        success, odds = (value.gather(1, arms.allowed.int().argmax(1)[:, None])[:, 0] for value in both)
        return success, odds
