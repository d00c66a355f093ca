"""The rates at which a net may be pruned that is backdoored once it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from assay.errors import UnusableInput


@dataclass(frozen=True)
class Rates:
    """From ``low`` to ``high``, both shares of the filters in (0, 1); equal: the one rate."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high < 1:
            raise UnusableInput(f"expected rates 0 < low <= high < 1; got low={self.low}, high={self.high}")
        if abs(100 * self.low - round(100 * self.low)) > 1e-9:
            raise UnusableInput(f"expected the lowest rate in whole percents, as forms of an audit are; got {self.low}")

    @property
    def first_form(self) -> str:
        """The form of an audit that has the lowest rate."""
        return f"filters-{round(100 * self.low)}"

    def ways(self, generator: torch.Generator) -> list[Callable[[], float]]:
        """How a layer's rate may come about: the lowest, the highest, one drawn anew at each call."""
        if self.low == self.high:
            return [lambda: self.low]
        span = self.high - self.low
        return [
            lambda: self.low,
            lambda: self.high,
            lambda: self.low + span * float(torch.rand((), generator=generator)),
        ]
