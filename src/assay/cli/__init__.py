"""Command line: the only printing code. Results go to standard output, text for people to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

UNUSABLE = 2  # exit code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: Words of the command line, run in this process; None: those of the process, run in a child process
            with limits (``assay.sandbox``).
    """
    if arguments is not None:
        return _run(arguments)[0]
    _open_standard_streams()
    try:
        from assay.sandbox import phases
        from assay.sandbox.box import enter_box

        if (code := enter_box(sys.argv[1:])) is not None:
            return code
        code, verdict = _run(sys.argv[1:])
    except KeyboardInterrupt:  # during the imports
        sys.stderr.write("assay: interrupted\n")
        code, verdict = UNUSABLE, False
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()
    phases.ended(code, verdict=verdict)
    return code


def _run(arguments: Sequence[str]) -> tuple[int, bool]:
    """Return the exit code of a command, and whether it is a verdict."""
    from assay.cli.app import run
    from assay.cli.failures import Verdict, exit_code_of

    code = exit_code_of(lambda: run(arguments))
    return int(code), isinstance(code, Verdict)


def _open_standard_streams() -> None:
    """Open the null device in place of each closed standard stream, so that no other file gets its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (open until the end of the process)
