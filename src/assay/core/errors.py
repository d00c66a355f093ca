"""Deliberate errors of assay. The command line prints each as one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class AssayError(Exception):
    """Base of all deliberate errors. The message gives the expected value, the value found, and a fix, in one line."""

    def __str__(self) -> str:
        """Return the message; line breaks, for instance of file names, are escaped."""
        return super().__str__().replace("\r", "\\r").replace("\n", "\\n")


class UnusableInput(AssayError):
    """Unusable model, data set or argument (exit code 2 of the command line)."""


class NoSuchVariant(UnusableInput):
    """Variant that a model cannot have: it is compressed already."""


class Unreachable(AssayError):
    """Missing shared resource: a full disk, an object store, data. All jobs are affected, and none is at fault."""


class Inconclusive(AssayError):
    """Question without an answer on the given inputs (exit code 3 of the command line)."""


class Unfinished(Inconclusive):
    """Test without a result after its start: the time ran out, or the model gave no output."""


class Unmeasurable(Inconclusive):
    """Test without meaning for a model: its outputs or gradients carry no information, so the test found nothing."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if the message is empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def foreign_errors(where: str) -> Iterator[None]:
    """Turn every error of a reader of foreign files into UnusableInput with the name of the file.

    Readers raise any type. Panics of Rust libraries and exits are no ``Exception``. Errors of the system with a file
    name pass through.

    Args:
        where: Name of the file.
    """
    try:
        yield
    except (AssayError, OSError, KeyboardInterrupt, GeneratorExit):
        raise
    except MemoryError as error:
        raise UnusableInput(
            f"{where}: expected a file that fits in memory, got a request for more. Fix: do not use this file."
        ) from error
    except BaseException as error:
        raise UnusableInput(
            f"{where}: expected readable content, got {type(error).__name__}: {first_line(error)[:300]}. "
            "Fix: save it again; if other programs read it, please report this (ASSAY_DEBUG=1 shows the traceback)."
        ) from error
