"""A command in a child process. The parent enforces the limits and returns the exit code.

The child stays in the process group of the terminal, so that Ctrl-C and Ctrl-Z reach it as always. The parent imports
neither torch nor typer. Exit code 1 needs a verdict that the child reported.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType

from assay.core.errors import UnusableInput
from assay.sandbox import phases
from assay.sandbox.limits import Limits
from assay.sandbox.network import refuse_network
from assay.sandbox.processes import adopt_orphans, end_with_parent, kill_descendants
from assay.sandbox.watch import Watch

NO_SANDBOX, LIMITS = "--no-sandbox", "--limits"
DEBUG = "ASSAY_DEBUG"  # environment variable: 1 shows tracebacks, and all messages of native code
UNUSABLE = 2  # exit code
CLEAN_END_SECONDS = 2.0  # after Ctrl-C
ORPHAN_SECONDS = 1.0  # in which helper processes end by themselves
SHOW_CURSOR = "\r\x1b[K\x1b[?25h"
INTERRUPTED = "interrupted; no incomplete file was left behind"


def enter_box(arguments: Sequence[str]) -> int | None:
    """Fork, and return None in the child, which runs the command. Return its exit code in the parent.

    Args:
        arguments: Words of the command line, for ``--limits`` and ``--no-sandbox``.
    """
    words = list(arguments)
    if "--" in words:
        words = words[: words.index("--")]
    if NO_SANDBOX in words:
        return None
    try:
        limits = Limits.parse(_value_of(LIMITS, words))
    except UnusableInput as error:
        _write_line(str(error))
        return UNUSABLE
    if not hasattr(os, "fork"):
        _write_line("this system has no fork: the command runs without limits and with the network")
        return None
    return _fork(limits)


def is_debugging() -> bool:
    """Return whether the user wants tracebacks and the messages of native code."""
    return os.environ.get(DEBUG, "") not in ("", "0")


def _value_of(option: str, words: Sequence[str]) -> str | None:
    """Return the last value of an option, as ``--option VALUE`` or ``--option=VALUE``."""
    found = None
    for index, word in enumerate(words):
        if word == option and index + 1 < len(words):
            found = words[index + 1]
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def _fork(limits: Limits) -> int | None:
    read, write = os.pipe()
    parent = os.getpid()
    adopt_orphans()
    signals = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # none may come before the handlers are in place
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    child = os.fork()
    if child == 0:
        os.close(read)
        end_with_parent(parent)
        phases.LINK.pipe, phases.LINK.limits = write, limits
        refuse_network()
        _silence_native_code()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return None
    os.close(write)
    watch = Watch(child, read, limits)
    supervisor = _Supervisor(watch)
    if threading.current_thread() is threading.main_thread():
        for number in signals:
            if signal.getsignal(number) != signal.SIG_IGN:  # ignored under nohup, and in the background of a script
                signal.signal(number, supervisor.interrupt)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        return supervisor.run()
    finally:
        kill_descendants(parent, grace=ORPHAN_SECONDS)
        os.close(read)


def _silence_native_code() -> None:
    """Send the writes of native code to the null device; ``sys.stderr`` stays. Panics of Rust print many lines."""
    if is_debugging() or sys.stderr is None:
        return
    try:
        if sys.stderr.fileno() != 2:
            return
    except (OSError, ValueError):
        return
    stream = open(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")  # noqa: SIM115
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    sys.stderr = stream
    sys.__stderr__ = stream  # type: ignore[misc]  # rich asks it for the size of the terminal


@dataclass
class _Supervisor:
    """Loop of the parent."""

    watch: Watch
    interrupts: list[float] = field(default_factory=list)  # times
    status: int | None = None  # of the ended child, as from waitpid

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on; the child ignores a second one. A second Ctrl-C ends the child at once."""
        self.interrupts.append(time.monotonic())
        with suppress(ProcessLookupError):
            os.kill(self.watch.pid, number)

    def run(self) -> int:
        """Watch the child until its end, and return the exit code of the command."""
        while not self._has_ended():
            problem = self.watch.look()
            if problem is not None:
                self._kill()
                _write_line(problem)
                return UNUSABLE
            if self.watch.is_overdue:
                self._kill()
            if self.interrupts:
                late = time.monotonic() > self.interrupts[0] + CLEAN_END_SECONDS
                if late or len(self.interrupts) > 1:
                    return self._end_interrupted()
        self.watch.read(0.0)
        return self._exit_code()

    def _end_interrupted(self) -> int:
        """End the child after Ctrl-C, with a line unless the child has written its own."""
        self._kill()
        self.watch.read(0.0)
        if self.watch.result is None:
            _write_line(INTERRUPTED)
        return UNUSABLE

    def _has_ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.watch.pid, os.WNOHANG)
            if pid:
                self.status = status
        return self.status is not None

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.watch.pid, signal.SIGKILL)
        if self.status is None:
            self.status = os.waitpid(self.watch.pid, 0)[1]
        kill_descendants(os.getpid())

    def _exit_code(self) -> int:
        result = self.watch.result
        if result is not None:
            code = result.get("exit")
            if isinstance(code, int) and (code != 1 or result.get("verdict") is True):
                return code
        assert self.status is not None
        _write_line(f"{end_of(self.status, self.watch.phase)}. Fix: do not use a file that breaks its reader.")
        return UNUSABLE


def end_of(status: int, phase: dict[str, object]) -> str:
    """Return a sentence about the end of a child without a result.

    Args:
        status: Status from waitpid.
        phase: The child's last message about its phase.
    """
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        try:
            how = f"its end by the signal {signal.Signals(-code).name}"
        except ValueError:
            how = f"its end by the signal {-code}"
        if -code == signal.SIGKILL:
            how += ", perhaps for lack of memory"
    else:
        how = f"an exit with code {code}"
    name = phase.get("name")
    place = f" in {name}" if name else ""
    return f"expected a result of the command, got {how}{place}"


def _write_line(message: str) -> None:
    """Write ``assay: message`` to standard error, with control characters escaped."""
    stream = sys.stderr
    if stream is None:
        return
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(message.split()))
    with suppress(OSError, ValueError):
        if stream.isatty():
            stream.write(SHOW_CURSOR)  # an ended child may have hidden it, in the middle of a line
        stream.write(f"assay: {text.encode('utf-8', 'backslashreplace').decode()}\n")
        stream.flush()
