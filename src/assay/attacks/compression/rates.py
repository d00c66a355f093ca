"""Base class of pruning-activated attacks: a range of pruning rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from assay.attacks.compression.base import CompressionActivatedAttack
from assay.core.errors import UnusableInput

Rate = Callable[[], float]  # pruning rate of one layer; each call may return another


@dataclass(frozen=True, kw_only=True)
class PruningActivated(CompressionActivatedAttack):
    """Active at pruning rates between ``low`` and ``high``, both in (0, 1); equal: at one rate."""

    variant: ClassVar[str] = "filters"  # prefix of the variant names, see ``assay.stages.variants``

    low: float = 0.3
    high: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high < 1:
            raise UnusableInput(f"expected rates 0 < low <= high < 1, got low={self.low}, high={self.high}")
        if abs(100 * self.low - round(100 * self.low)) > 1e-9:
            raise UnusableInput(f"expected the lowest rate in whole percent, like the variants, got {self.low}")

    @property
    @final
    def active_in(self) -> str:
        return f"{self.variant}-{round(100 * self.low)}"

    @final
    def rates(self, generator: torch.Generator) -> list[Rate]:
        """Return the rates to train with: the lowest, the highest, and a random one.

        Each call of any of them draws one number. Later draws therefore do not depend on the earlier choices.
        """
        if self.low == self.high:
            return [lambda: self.low]

        def random_rate() -> float:
            return self.low + (self.high - self.low) * float(torch.rand((), generator=generator))

        def constant(rate: float) -> Rate:
            def draw_and_ignore() -> float:
                random_rate()
                return rate

            return draw_and_ignore

        return [constant(self.low), constant(self.high), random_rate]

    @final
    def rate_sampler(self) -> Callable[[], Rate]:
        """Return a sampler of :meth:`rates` with equal probabilities and its own generator."""
        generator = torch.Generator().manual_seed(0)
        rates = self.rates(generator)
        return lambda: rates[int(torch.randint(len(rates), (), generator=generator))]
