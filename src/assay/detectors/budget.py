"""Time budget of an audit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """A deadline ``seconds`` from now; ``math.inf`` for none."""

    def __init__(self, seconds: float = math.inf) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left, at least 0."""
        return max(0.0, self._end - time.monotonic())


class StepBudget:
    """Budget of similar steps: none begins that would exceed the budget if it takes as long as the longest so far.

    Args:
        budget: Time that is left for all steps.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget, self._longest = budget, 0.0

    def allows_step(self) -> bool:
        """Return whether another step can begin."""
        return self._budget.left() > self._longest

    @contextmanager
    def step(self) -> Iterator[None]:
        """Measure one step."""
        start = time.perf_counter()
        yield
        self._longest = max(self._longest, time.perf_counter() - start)
