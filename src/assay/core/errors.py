"""Deliberate errors of assay. The command line prints each as one line."""

from __future__ import annotations


class AssayError(Exception):
    """Base of all deliberate errors. The message gives the expected value, the value found, and a fix."""


class UnusableInput(AssayError):
    """Unusable model, data set or argument (exit code 2 of the command line)."""


class Unreachable(AssayError):
    """Missing shared resource: a full disk, an object store, data. All jobs are affected, and none is at fault."""


class Inconclusive(AssayError):
    """Question without an answer on the given inputs (exit code 3 of the command line)."""


class Unfinished(Inconclusive):
    """Test without a result after its start: the time ran out, or the model gave no output."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if the message is empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
