"""From whatever goes wrong to one line on standard error and an exit code."""

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

UNUSABLE, INCONCLUSIVE = 2, 3
TYPER_INTERRUPTED = 130
"""What typer makes of Ctrl-C; here it is as unusable as everything else that gave no answer."""

DEBUG = "ASSAY_DEBUG"


def guarded(command: Callable[[], int]) -> int:
    """The exit code of ``command``; whatever it raises becomes one line, unless ASSAY_DEBUG=1 wants the traceback."""
    from typer import Abort
    from typer.exceptions import TyperException

    try:
        with warnings.catch_warnings(), _ending_politely():
            if not _debugging():
                warnings.simplefilter("ignore")  # of libraries, to their developers
            code = command()
        if code == TYPER_INTERRUPTED:
            raise KeyboardInterrupt
        return code
    except (KeyboardInterrupt, Abort):
        error_line("interrupted; nothing half-written is left behind")
        return UNUSABLE
    except TyperException as error:
        if not error.format_message():  # no command: typer has shown the help
            return UNUSABLE
        error_line(f"{error.format_message()} (`assay --help` and `assay COMMAND --help` say what is expected)")
        return UNUSABLE
    except BrokenPipeError:  # the reader of standard output has gone, as in `assay ... --json - | head -1`
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (for the interpreter's own last flush)
        return UNUSABLE
    except AssayError as error:
        error_line(str(error))
        return INCONCLUSIVE if isinstance(error, Inconclusive) else UNUSABLE
    except Exception as error:
        if _debugging():
            raise
        first = (str(error).strip() or "no message").splitlines()[0]
        error_line(
            f"unexpected {type(error).__name__}: {first} (set {DEBUG}=1 to see the traceback, and please report it)"
        )
        return UNUSABLE


@contextmanager
def _ending_politely() -> Iterator[None]:
    """SIGTERM, as schedulers send it, counts as Ctrl-C."""
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
