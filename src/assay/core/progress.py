"""How far long work is: whoever does it says the share done, whoever asked for it says what to make of that."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float], None]
"""Called with the share done, in [0, 1]."""

Step = Callable[[str, float], None]
"""Called with what is being done and the share of the whole that is done."""


def part(progress: Progress, start: float, end: float) -> Progress:
    """The progress of the part of the work that lies between the shares ``start`` and ``end`` of all of it."""
    return lambda share: progress(start + (end - start) * share)


def named(step: Step, what: str) -> Progress:
    """A ``Step`` for work that has one name all along."""
    return lambda share: step(what, share)
