"""The errors that assay raises on purpose; the command line turns each into one line."""

from __future__ import annotations


class AssayError(Exception):
    """Base of all deliberate errors: the message says what was expected, what came and what to do."""


class UnusableInput(AssayError):
    """A model, data set or argument that cannot be used (exit code 2 of the command line)."""


class Unreachable(AssayError):
    """What all the work rests on is not there (a disk that is full, an object store, data): no one job is at fault."""


class Inconclusive(AssayError):
    """The question cannot be answered with what is at hand (exit code 3 of the command line)."""


class Unfinished(Inconclusive):
    """A test began, and what it would have said is not known: the time was up, or the model gave no answer."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, else its type: other people's errors run to pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
