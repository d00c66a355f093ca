"""The errors that assay raises on purpose; the command line turns each into one line."""

from __future__ import annotations


class AssayError(Exception):
    """Base of all deliberate errors: the message says what was expected, what came and what to do."""


class UnusableInput(AssayError):
    """A model, data set or argument that cannot be used (exit code 2 of the command line)."""


class Inconclusive(AssayError):
    """The question cannot be answered with what is at hand (exit code 3 of the command line)."""
