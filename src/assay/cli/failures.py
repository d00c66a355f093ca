"""Errors as one line on standard error and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from assay.cli.screen import error_line
from assay.core.errors import AssayError, Inconclusive
from assay.sandbox.box import DEBUG, INTERRUPTED, is_debugging
from assay.sandbox.phases import LINK

BACKDOORED, UNUSABLE, INCONCLUSIVE = 1, 2, 3  # exit codes
TYPER_INTERRUPTED = 130  # exit code of typer for Ctrl-C; assay uses UNUSABLE, as for any missing result


class Verdict(int):
    """Exit code of a command that gave a verdict. Only such a command may end with exit code 1."""


def exit_code_of(command: Callable[[], int]) -> int:
    """Run a command and return its exit code. Errors become one line, or a traceback with ASSAY_DEBUG=1."""
    from typer import Abort
    from typer.exceptions import TyperException

    try:
        with warnings.catch_warnings(), _signals_as_interrupt():
            if not is_debugging():
                warnings.simplefilter("ignore")  # warnings of libraries are for developers
            code = command()
        if code == TYPER_INTERRUPTED:
            raise KeyboardInterrupt
        if code == BACKDOORED and not isinstance(code, Verdict):
            error_line("expected a verdict of the command, got exit code 1 without one. Fix: please report it.")
            return UNUSABLE
        return code
    except (KeyboardInterrupt, Abort):
        error_line(INTERRUPTED)
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
        if is_debugging() and error.__cause__ is not None:
            traceback.print_exception(error)
        error_line(str(error))
        return INCONCLUSIVE if isinstance(error, Inconclusive) else UNUSABLE
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # typer, as above
            return UNUSABLE
        error_line(f"expected the command to end by itself, got an exit with code {error.code} inside of it")
        return UNUSABLE
    except BaseException as error:  # also panics of Rust, exits of foreign code, lack of memory
        if is_debugging() and isinstance(error, Exception):
            raise
        first = (str(error).strip() or "no message").splitlines()[0]
        error_line(f"unexpected {type(error).__name__}: {first} (please report it; {DEBUG}=1 shows the traceback)")
        return UNUSABLE


@contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM, the signal of schedulers, as Ctrl-C. Ignore a second signal, so that the first one ends its work.

    The terminal and the supervisor both send a Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # under nohup, and in the background of a script
    numbers = [signal.SIGTERM] if ignored else [signal.SIGTERM, signal.SIGINT]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN or LINK.pipe is None:
            for number, handler in before.items():
                signal.signal(number, handler)
