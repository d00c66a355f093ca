"""The supervisor's view of a child process: its messages, its clock and its memory."""

from __future__ import annotations

import json
import os
import select
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from assay.sandbox.limits import GIB, GRACE_SECONDS, Limits, budget_end
from assay.sandbox.processes import descendants, resident_memory

POLL_SECONDS = 0.05
TREE_SECONDS = 0.5  # between two lists of the descendants
MAX_STEP = 1.0  # seconds that one look adds to a clock; a stopped machine or process does not count
MAX_READS = 1000  # before the next look at clock and memory
EXIT_SECONDS = 10.0  # between the result of a child and the end of its process
MAX_MESSAGE = 64 * 2**20  # bytes


@dataclass
class Watch:
    """A child process under limits."""

    pid: int
    pipe: int
    limits: Limits
    phase: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None  # the last message of the child: its exit or its outcome
    in_phase: float = 0.0  # seconds, of the clock of this class
    since_sign: float = 0.0  # seconds since the last message
    _buffer: bytes = b""
    _last: float = field(default_factory=time.monotonic)
    _tree: list[int] = field(default_factory=list)
    _tree_age: float = TREE_SECONDS
    _open: bool = True

    @property
    def is_overdue(self) -> bool:
        """True if the child has sent its result, and does not end."""
        return self.result is not None and self.since_sign > EXIT_SECONDS

    def look(self, seconds: float = POLL_SECONDS) -> str | None:
        """Wait for messages, and return the reason to end the child; None: it may go on.

        Args:
            seconds: Longest wait.
        """
        if self._open:
            self.read(seconds)
        else:
            time.sleep(min(seconds, 0.01))
        now = time.monotonic()
        step, self._last = min(now - self._last, MAX_STEP), now
        self.in_phase += step
        self.since_sign += step
        self._tree_age += step
        return self._time_problem() or self._memory_problem()

    def read(self, seconds: float) -> None:
        """Read the waiting messages.

        Args:
            seconds: Longest wait for the first one.
        """
        for _ in range(MAX_READS):
            if not self._open or not select.select([self.pipe], [], [], seconds)[0]:
                return
            content = b""
            with suppress(OSError):
                content = os.read(self.pipe, 2**16)
            self._open = bool(content)
            *lines, self._buffer = (self._buffer + content).split(b"\n")
            for line in lines:
                self._take(line)
            if len(self._buffer) > MAX_MESSAGE:
                self._buffer = b""
            seconds = 0.0

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return
        if not isinstance(message, dict):
            return
        self.since_sign = 0.0
        if "phase" in message:
            self.phase, self.in_phase = message, 0.0
        elif "exit" in message or "outcome" in message:
            self.result = message

    def _time_problem(self) -> str | None:
        if self.result is not None:
            return None
        if self.phase.get("phase") == "reading":
            limit = self.limits.reading_seconds(self._size())
            if self.in_phase > limit:
                return (
                    f"{self._name()}: expected at most {limit:g} seconds, got no end in that time. "
                    "Fix: do not use this file, or raise --limits time=SECONDS if it is trusted."
                )
        budget = self.phase.get("budget")
        if self.phase.get("phase") == "running" and isinstance(budget, int | float):
            late = self.in_phase > budget_end(budget) and self.since_sign > GRACE_SECONDS
            if late or self.in_phase > 2 * budget_end(budget):
                return (
                    f"expected an end within the budget of {budget:g} seconds, got none after {self.in_phase:.0f}: "
                    "one step of the model does not end. Fix: raise --budget, or do not use this model."
                )
        return None

    def _memory_problem(self) -> str | None:
        if self._tree_age >= TREE_SECONDS:
            self._tree, self._tree_age = descendants(self.pid), 0.0
        used = resident_memory(self.pid, self._tree)
        is_reading = self.phase.get("phase") == "reading"
        limits = Limits() if self.phase.get("phase") == "batch" else self.limits
        limit = limits.reading_memory(self._size()) if is_reading else limits.total_memory()
        if used <= limit:
            return None
        return (
            f"{self._name()}: expected at most {limit / GIB:.3g} GiB of memory, got {used / GIB:.3g}. "
            "Fix: do not use this file, or raise --limits memory=GIB if it is trusted."
        )

    def _size(self) -> int:
        size = self.phase.get("size")
        return size if isinstance(size, int) else 0

    def _name(self) -> str:
        return str(self.phase.get("name") or "the command")
