"""Time budget of an audit."""

from __future__ import annotations

import math
import time


class Budget:
    """A deadline ``seconds`` from now; ``math.inf`` for none."""

    def __init__(self, seconds: float = math.inf) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left, at least 0."""
        return max(0.0, self._end - time.monotonic())
