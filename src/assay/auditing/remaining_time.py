"""Estimate of the time that an audit still needs.

The passes of each test are known (``detectors/cost.py``). The seconds of a pass are measured on each variant. The tests
that are done correct the expected time of those that are not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from assay.core.finding import FULL

SECONDS_PER_PASS = 1e-3  # before any measurement; a ResNet-20 of 32 pixels needs 2e-3
SECONDS_PER_TEST = 0.1  # without the passes: digests, triggers, evidence
# Weight of the expectation against the tests that are done, in seconds: one short test corrects little.
TRUST_SECONDS = 1.0
MAKING = "making"  # method of the work that makes a variant


@dataclass(frozen=True)
class Work:
    """A test, or the making of a variant."""

    name: str  # "variant/detector", or the variant
    variant: str
    method: str  # name of the detector, or MAKING
    passes: float = 0.0  # forward passes of one image; a backward pass counts as one more
    seconds: float = 0.0  # that do not depend on the seconds of a pass
    gradients: bool = False


@dataclass
class RemainingTime:
    """Expected seconds of all work that is not done.

    Args:
        work: All work of the audit.
        processes: Number of processes that share the work.
        clock: Seconds since any point in time.
    """

    work: Iterable[Work]
    processes: int = 1
    clock: Callable[[], float] = time.monotonic
    _open: dict[str, Work] = field(init=False, default_factory=dict)
    _began: dict[str, float] = field(init=False, default_factory=dict)
    _fraction: dict[str, float] = field(init=False, default_factory=dict)
    _done: list[tuple[Work, float]] = field(init=False, default_factory=list)
    _speed: dict[str, float] = field(init=False, default_factory=dict)
    _expected: dict[str, float] = field(init=False, default_factory=dict)  # until the next measurement or end

    def __post_init__(self) -> None:
        self._open = {work.name: work for work in self.work}
        self._start = self.clock()

    def measured(self, variant: str, seconds_per_pass: float) -> None:
        """Take the measured seconds of a pass.

        Args:
            variant: Name of the variant.
            seconds_per_pass: Seconds of a forward pass of one image.
        """
        self._speed[variant] = seconds_per_pass
        self._expected.clear()

    def begin(self, name: str) -> None:
        """Take the start of the work called ``name``."""
        if name in self._open and name not in self._began:
            self._began[name], self._fraction[name] = self.clock(), 0.0

    def report(self, name: str, fraction: float) -> None:
        """Take the fraction done, in [0, 1], of the work called ``name``."""
        self._fraction[name] = fraction

    def end(self, name: str, *, completed: bool = True) -> None:
        """Take the end of some work.

        Args:
            name: Its name.
            completed: False: it was left out, or ended early, and corrects no expectation.
        """
        work = self._open.pop(name, None)
        began = self._began.pop(name, None)
        if work is not None and began is not None and completed:
            self._done.append((work, self.clock() - began))
            self._expected.clear()

    def expected(self, name: str) -> float:
        """Return the expected seconds of some work from its start to its end; 0 if it is done."""
        work = self._open.get(name)
        if work is None:
            return 0.0
        if name not in self._expected:
            self._expected[name] = self._planned(work) * self._correction(work)
        return self._expected[name]

    @property
    def seconds(self) -> float:
        """Expected seconds until all work is done."""
        each = [self._left(name) for name in self._open]
        return max([sum(each) / self.processes, *each], default=0.0)

    @property
    def fraction(self) -> float:
        """Time so far as a fraction of the expected time, in [0, 1]."""
        left = self.seconds
        so_far = self.clock() - self._start
        return so_far / (so_far + left) if left else 1.0

    @property
    def tests(self) -> int:
        """Number of tests that are not done."""
        return sum(work.method != MAKING for work in self._open.values())

    def _left(self, name: str) -> float:
        expected = self.expected(name)
        if name not in self._began:
            return expected
        so_far, fraction = self.clock() - self._began[name], self._fraction[name]
        if not fraction:
            return max(0.0, expected - so_far)
        # The more is done, the more the time so far counts: so_far / fraction is the whole time by itself.
        return (1 - fraction) * ((1 - fraction) * expected + so_far)

    def _planned(self, work: Work) -> float:
        speed = self._speed.get(work.variant, self._speed.get(FULL, SECONDS_PER_PASS))
        return work.seconds + work.passes * speed + SECONDS_PER_TEST

    def _correction(self, work: Work) -> float:
        """Return the ratio of actual to planned time: of the same method, else of the same kind, else of all tests."""
        tests = [pair for pair in self._done if pair[0].method != MAKING]
        for similar in (
            [pair for pair in self._done if pair[0].method == work.method],
            [pair for pair in tests if pair[0].gradients == work.gradients],
            tests,
        ):
            if similar:
                planned = sum(self._planned(done) for done, _ in similar)
                return (TRUST_SECONDS + sum(seconds for _, seconds in similar)) / (TRUST_SECONDS + planned)
        return 1.0
