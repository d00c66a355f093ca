"""A search through windows: what can a pattern at one place do? First for every window, then for every class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.inversion.families import WindowFamily
from assay.inversion.hunt import CHECKED, LARGE, Check, Hunt, outcomes, plainly
from assay.inversion.search import Arms, advance, start

WARM = 0.3
"""How much of its window's first pattern a class starts from: what is saturated has no gradient left."""

COMPARED = 24
"""Pictures on which the windows are compared."""


@dataclass(frozen=True)
class WindowEffort:
    """How much the search may do. The defaults are what the shipped null distributions were made with."""

    overlap: bool = True  # whether a window lies between any two that touch
    window_steps: int = 10
    window_batch: int = 6  # pictures a window and step
    classes: int = 8  # that are searched after the windows
    class_steps: int = 20
    class_batch: int = 16
    hope: float = float("-inf")  # where no window gives a class higher log odds than this, the search is over

    def at(self, shape: tuple[int, int, int]) -> WindowEffort:
        """The effort for pictures of ``shape`` (C, H, W): where each costs 50 times as much, fewer of them."""
        if shape[1] * shape[2] <= LARGE:
            return self
        return replace(self, overlap=False, window_steps=8, window_batch=4, classes=5, class_steps=12, class_batch=6)


def hunt_windows(
    net: nn.Module,
    x: Tensor,
    predicted: Tensor,
    num_classes: int,
    *,
    effort: WindowEffort,
    seed: int,
    outcomes_beside: int = 0,
    check: Check | None = None,
    tick: Callable[[float], bool] = lambda share: True,
) -> tuple[WindowFamily, Hunt]:
    """Search ``net`` (from ``prepare``) for the class that a pattern in one window reaches most easily.

    ``x`` (N, C, H, W) clean pictures; ``predicted`` (N,) what the net says of them. ``outcomes_beside``: how many
    outcomes ``net`` has behind its classes, which no trigger goes for. ``check``: what the finished patterns are
    compared by; None: by ``net``. ``tick`` gets the share of the work done and says whether there is time left; where
    there is not, ``steps`` of the Hunt is less than the effort's.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (x.shape[1], x.shape[2], x.shape[3])
    family = WindowFamily(overlap=effort.overlap)
    windows = len(family.windows(shape))
    first, second = windows * effort.window_batch, min(effort.classes, num_classes) * effort.class_batch
    work, done = first * effort.window_steps + second * effort.class_steps, 0

    def search(arms: Arms, steps: int, batch: int) -> None:
        def go_on() -> bool:
            nonlocal done
            done += len(arms.cost) * batch
            return tick(min(1.0, done / work))

        advance(net, family, arms, x, predicted, steps=steps, batch=batch, generator=generator, tick=go_on)

    def for_classes(allowed: Tensor) -> Arms:
        return start(family, F.pad(allowed, (0, outcomes_beside)), shape, generator)

    free = for_classes(torch.ones(windows, num_classes, dtype=torch.bool))
    search(free, effort.window_steps, effort.window_batch)
    _, ease = outcomes(plainly(net), family, free.parameters, x[:COMPARED], predicted[:COMPARED])  # (M, K)
    classes = ease[:, :num_classes].amax(0).argsort(descending=True)[: effort.classes]
    chosen = ease.argmax(0)[classes]
    arms = for_classes(torch.eye(num_classes, dtype=torch.bool)[classes])
    pattern, window = free.parameters
    moved = float(ease[:, :num_classes].max()) >= effort.hope
    hopeless = free.step == effort.window_steps and not moved  # not where the time was up
    arms.parameters = (pattern[chosen] if hopeless else WARM * pattern[chosen], window[chosen])
    if not hopeless:
        search(arms, effort.class_steps, effort.class_batch)
    success, odds = outcomes(check or plainly(net), family, arms.parameters, x[:CHECKED], predicted[:CHECKED])
    success, odds = (value.gather(1, classes[:, None])[:, 0] for value in (success, odds))
    order = odds.argsort(descending=True)
    best = tuple(p[order[:1]] for p in arms.parameters)
    sizes = family.size(arms.parameters)[order]
    found = Hunt(classes[order], odds[order], sizes, success[order], best, free.step + arms.step)
    return family, replace(found, hopeless=hopeless)
