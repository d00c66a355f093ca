"""Reports of a child process to its supervisor: the phase of its work, and its end.

Library code calls ``reading`` around each foreign file. Without a supervisor the calls do nothing.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assay.sandbox.limits import Limits, size_of

ALIVE_SECONDS = 1.0  # at least, between two signs of life


@dataclass
class Link:
    """Pipe from this process to its supervisor."""

    pipe: int | None = None  # None: there is no supervisor
    limits: Limits = field(default_factory=Limits)  # of the supervisor, for the jobs of this process
    phase: dict[str, Any] = field(default_factory=dict)  # the last message about a phase
    last_sign: float = 0.0

    def send(self, **message: Any) -> None:
        """Send a message, without waiting for an answer."""
        if self.pipe is not None:
            content = json.dumps(message).encode() + b"\n"
            try:
                while content:
                    content = content[os.write(self.pipe, content) :]
            except OSError:  # the supervisor has ended, and this process ends with it
                self.pipe = None

    @contextmanager
    def enter(self, phase: dict[str, Any]) -> Iterator[None]:
        """Report a phase, and the phase around it at the end."""
        before, self.phase = self.phase, phase
        self.send(**phase)
        try:
            yield
        finally:
            self.phase = before
            self.send(**(before or {"phase": ""}))


LINK = Link()  # a process has one supervisor


@contextmanager
def reading(name: str, *paths: str | Path) -> Iterator[None]:
    """Report the reading of foreign files, with its limits of time and memory.

    Args:
        name: Name of the work, as "reading model.onnx".
        paths: The files and folders; their size raises the limits.
    """
    if LINK.pipe is None or LINK.phase.get("phase") == "reading":
        yield
        return
    with LINK.enter({"phase": "reading", "name": name, "size": size_of(paths)}):
        yield


@contextmanager
def waiting(name: str) -> Iterator[None]:
    """Report a wait for others, as a download: it has no limit of time."""
    with LINK.enter({"phase": "waiting", "name": name}):
        yield


@contextmanager
def batch() -> Iterator[None]:
    """Report work in boxes of its own: given limits count for each of them, and not for all."""
    with LINK.enter({"phase": "batch"}):
        yield


@contextmanager
def running(budget: float) -> Iterator[None]:
    """Report the start of a work with a budget.

    Args:
        budget: Seconds; infinity for none.
    """
    with LINK.enter({"phase": "running", "budget": budget if math.isfinite(budget) else None}):
        yield


def alive() -> None:
    """Send a sign of life, at most one a second."""
    if LINK.pipe is not None and time.monotonic() - LINK.last_sign >= ALIVE_SECONDS:
        LINK.last_sign = time.monotonic()
        LINK.send(alive=True)


def ended(code: int, *, verdict: bool) -> None:
    """Report the end of a command.

    Args:
        code: Its exit code.
        verdict: Whether the code is a verdict.
    """
    LINK.send(exit=code, verdict=verdict)
