"""Errors as one line on standard error and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from assay.cli.screen import error_line
from assay.core.errors import AssayError, Inconclusive

UNUSABLE, INCONCLUSIVE = 2, 3  # exit codes
TYPER_INTERRUPTED = 130  # exit code of typer for Ctrl-C; assay uses UNUSABLE, as for any missing result
DEBUG = "ASSAY_DEBUG"  # environment variable: 1 shows tracebacks and warnings


def exit_code_of(command: Callable[[], int]) -> int:
    """Run a command and return its exit code. Errors become one line, or a traceback with ASSAY_DEBUG=1."""
    from typer import Abort
    from typer.exceptions import TyperException

    try:
        with warnings.catch_warnings(), _sigterm_as_interrupt():
            if not _debugging():
                warnings.simplefilter("ignore")  # warnings of libraries are for developers
            code = command()
        if code == TYPER_INTERRUPTED:
            raise KeyboardInterrupt
        return code
    except (KeyboardInterrupt, Abort):
        error_line("interrupted; no incomplete file was left behind")
        return UNUSABLE
    except TyperException as error:
        if not error.format_message():  # no command: typer has shown the help
            return UNUSABLE
        error_line(f"{error.format_message()} (see `assay --help` and `assay COMMAND --help`)")
        return UNUSABLE
    except BrokenPipeError:  # the reader of standard output ended, as in `assay ... --json - | head -1`
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (for the final flush of the interpreter)
        return UNUSABLE
    except AssayError as error:
        error_line(str(error))
        return INCONCLUSIVE if isinstance(error, Inconclusive) else UNUSABLE
    except Exception as error:
        if _debugging():
            raise
        first = (str(error).strip() or "no message").splitlines()[0]
        error_line(f"unexpected {type(error).__name__}: {first} (please report it; {DEBUG}=1 shows the traceback)")
        return UNUSABLE


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM, the signal of schedulers, as Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _debugging() -> bool:
    return os.environ.get(DEBUG, "") not in ("", "0")
