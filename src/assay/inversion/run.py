"""Inputs and settings common to all trigger searches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

BudgetT = TypeVar("BudgetT")

ShouldContinue = Callable[[float], bool]  # gets the completed fraction of the work; False stops the search


@dataclass(frozen=True)
class CleanImages:
    """Clean images with the model's predicted classes."""

    x: Tensor  # (N, C, H, W) in [0, 1]
    predicted: Tensor  # (N,) int64

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        return self.x.shape[1], self.x.shape[2], self.x.shape[3]

    def first(self, count: int) -> CleanImages:
        """Return the first ``count`` images."""
        return CleanImages(self.x[:count], self.predicted[:count])


@dataclass(frozen=True)
class SearchRun(Generic[BudgetT]):
    """Search budget, random seed and stop callback of one search."""

    budget: BudgetT
    seed: int
    should_continue: ShouldContinue = lambda fraction: True
