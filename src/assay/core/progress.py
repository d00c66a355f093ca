"""Progress callbacks. The worker reports the completed fraction, and the caller displays it."""

from __future__ import annotations

from collections.abc import Callable

# Called with the completed fraction of the work, in [0, 1].
Progress = Callable[[float], None]

# Called with the name of the current work, and the completed fraction of all work, in [0, 1].
Step = Callable[[str, float], None]


def part(progress: Progress, start: float, end: float) -> Progress:
    """Return the progress callback for one part of the work.

    Args:
        progress: Callback for the whole work.
        start: Fraction of the whole at the beginning of the part.
        end: Fraction of the whole at the end of the part.
    """
    return lambda fraction: progress(start + (end - start) * fraction)


def named(step: Step, name: str) -> Progress:
    """Return the progress callback for work with one constant ``name``."""
    return lambda fraction: step(name, fraction)
