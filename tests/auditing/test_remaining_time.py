"""Estimate of the time left, with a clock of its own."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from assay.auditing.remaining_time import MAKING, RemainingTime, Work

VARIANTS = ("full", "int8", "prune-50")
SCANS = {"blend": 1_200, "noise": 700, "depth": 600, "patch": 7_600, "wave": 3_500}
SEARCHES = {"max-margin": 4_000, "neural-cleanse": 9_200, "local-patch": 14_400, "universal": 8_200}


SLOWER = {"full": 1.0, "int8": 1.8, "prune-50": 1.0}  # seconds of a pass, relative to the full model


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def audit() -> list[Work]:
    """Return the work of an audit, in its order."""
    scans = [Work(f"{v}/{name}", v, name, passes) for v in VARIANTS for name, passes in SCANS.items()]
    searches = [Work(f"full/{name}", "full", name, passes, gradients=True) for name, passes in SEARCHES.items()]
    gaps = [Work(f"{v}/gap", v, "gap", 24_000, gradients=True) for v in VARIANTS[1:]]
    return [*scans, *searches, *gaps, Work("full/graph", "full", "graph", 100, seconds=6)]


def true_seconds(work: Work, machine: random.Random, speed: float) -> float:
    """Return the seconds that some work takes: passes are off by up to a quarter, gradients by more."""
    return work.seconds + speed * SLOWER[work.variant] * work.passes * machine.uniform(0.8, 1.25) * (
        1.3 if work.gradients else 1.0
    )


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("speed", [2e-4, 2e-3, 2e-2])
def test_from_the_third_test_on_the_estimate_is_right_within_a_factor_of_two(seed: int, speed: float) -> None:
    clock, machine, works = Clock(), random.Random(seed), audit()
    left = RemainingTime(works, clock=clock)
    seconds = {work.name: true_seconds(work, machine, speed) for work in works}
    for number, work in enumerate(works):
        if work.variant not in {earlier.variant for earlier in works[:number]}:  # a short measurement, busy machine
            left.measured(work.variant, speed * SLOWER[work.variant] * machine.uniform(0.8, 1.3))
        left.begin(work.name)
        for step in range(4):
            true = sum(seconds[later.name] for later in works[number + 1 :]) + seconds[work.name] * (1 - step / 4)
            if number >= 3 and true > 1:
                assert true / 2 < left.seconds < 2 * true, f"{left.seconds:.0f} s stated, {true:.0f} s left"
            clock.now += seconds[work.name] / 4
            left.report(work.name, (step + 1) / 4)
        left.end(work.name)
    assert left.seconds == 0
    assert left.fraction == 1


def test_a_test_that_takes_longer_than_expected_raises_the_estimate_of_its_own_kind_first() -> None:
    clock = Clock()
    works = [Work("full/scan", "full", "scan", 1_000), Work("int8/scan", "int8", "scan", 1_000)]
    works += [Work("full/search", "full", "search", 1_000, gradients=True)]
    works += [Work("int8/search", "int8", "search", 1_000, gradients=True)]
    left = RemainingTime(works, clock=clock)
    left.measured("full", 0.1)
    left.begin("full/scan")
    clock.now += 100
    left.end("full/scan")
    left.begin("full/search")
    clock.now += 300
    left.end("full/search")
    assert left.expected("int8/scan") == pytest.approx(100, rel=0.01)
    assert left.expected("int8/search") == pytest.approx(300, rel=0.02)


def test_work_that_was_left_out_or_ended_early_corrects_nothing() -> None:
    clock = Clock()
    works = [Work("full/scan", "full", "scan", 1_000), Work("int8/scan", "int8", "scan", 1_000)]
    left = RemainingTime(works, clock=clock)
    left.measured("full", 0.1)
    before = left.expected("int8/scan")
    left.begin("full/scan")
    clock.now += 1
    left.end("full/scan", completed=False)
    assert left.expected("int8/scan") == before
    left.end("int8/scan")
    assert (left.seconds, left.tests) == (0, 0)


def test_processes_share_the_work_and_the_longest_test_bounds_it() -> None:
    works = [Work(f"full/{number}", "full", str(number), 1_000) for number in range(8)]
    one, four = RemainingTime(works), RemainingTime(works, processes=4)
    assert four.seconds == pytest.approx(one.seconds / 4)
    many = RemainingTime([*works, Work("full/long", "full", "long", 50_000)], processes=8)
    assert many.seconds == pytest.approx(many.expected("full/long"))


def test_making_a_variant_is_no_test() -> None:
    left = RemainingTime([Work("int8", "int8", MAKING, 1_500), Work("int8/scan", "int8", "scan", 100)])
    assert left.tests == 1
    assert left.expected("int8") > left.expected("int8/scan")
