"""What attacks share that wake once a net is pruned: the range of rates at which they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from assay.attacks.compression.base import Dormant
from assay.core.errors import UnusableInput


@dataclass(frozen=True, kw_only=True)
class UntilPruned(Dormant):
    """Wakes where between ``low`` and ``high`` of what is pruned are gone, shares in (0, 1); equal: at the one rate."""

    form: ClassVar[str] = "filters"  # what is pruned, as ``assay.stages.variants`` calls it

    low: float = 0.3
    high: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high < 1:
            raise UnusableInput(f"expected rates 0 < low <= high < 1; got low={self.low}, high={self.high}")
        if abs(100 * self.low - round(100 * self.low)) > 1e-9:
            raise UnusableInput(f"expected the lowest rate in whole percents, as forms of an audit are; got {self.low}")

    @property
    @final
    def active_in(self) -> str:
        return f"{self.form}-{round(100 * self.low)}"

    @final
    def rates(self, generator: torch.Generator) -> list[Callable[[], float]]:
        """How a layer's rate may come about: the lowest, the highest, one drawn anew at each call.

        All of them draw, so that what is drawn later does not depend on which were called before.
        """
        if self.low == self.high:
            return [lambda: self.low]

        def drawn() -> float:
            return self.low + (self.high - self.low) * float(torch.rand((), generator=generator))

        def always(rate: float) -> Callable[[], float]:
            def same() -> float:
                drawn()
                return rate

            return same

        return [always(self.low), always(self.high), drawn]

    @final
    def one_of_rates(self) -> Callable[[], Callable[[], float]]:
        """At each call one of ``rates``, all as likely, by a generator of its own."""
        generator = torch.Generator().manual_seed(0)
        rates = self.rates(generator)
        return lambda: rates[int(torch.randint(len(rates), (), generator=generator))]
