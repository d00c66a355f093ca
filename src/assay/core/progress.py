"""Progress callbacks. The worker reports the completed fraction, and the caller displays it."""

from __future__ import annotations

from collections.abc import Callable

SECONDS_UP_TO, MINUTES_UP_TO = 95, 95  # above, the next unit is used

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


def duration_in_words(seconds: float) -> str:
    """Return a duration in words, as precise as an estimate is: "20 seconds", "4 minutes", "2 hours"."""
    if seconds < SECONDS_UP_TO:
        number, unit = round(seconds), "second"
        number = number if number < 10 else round(number, -1)
    elif seconds < MINUTES_UP_TO * 60:
        number, unit = round(seconds / 60), "minute"
    else:
        number, unit = round(seconds / 3600), "hour"
    return f"{number} {unit}{'' if number == 1 else 's'}"
