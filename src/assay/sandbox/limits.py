"""Limits of time and memory for the reading of foreign files."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from assay.core.errors import UnusableInput
from assay.sandbox.processes import machine_memory

GIB = 2**30
SECONDS = 120.0  # for reading a model or data, with the first run
READ_RATE = 2 * 2**20  # bytes a second: large files get more time
MEMORY_FLOOR = 4 * GIB  # while reading, for small files
MEMORY_FACTOR = 8  # times the size of the files, while reading
MACHINE_FRACTION = 0.8  # of the machine's memory, for the whole command
GRACE_SECONDS, GRACE_FRACTION = 10.0, 0.25  # beyond a budget, since searches end by themselves
MAX_FILES = 100_000  # of a folder, for its size


@dataclass(frozen=True)
class Limits:
    """Limits given by the user; None: the default."""

    seconds: float | None = None
    memory: float | None = None  # bytes
    workers: int = 1  # processes on this machine that share its memory

    @classmethod
    def parse(cls, text: str | None) -> Limits:
        """Return the limits in a text as ``time=120,memory=8``: seconds and GiB.

        Args:
            text: The text; None: no limits are given.

        Raises:
            UnusableInput: The text is malformed.
        """
        values: dict[str, float] = {}
        for part in [] if text is None else text.split(","):
            name, _, value = (piece.strip() for piece in part.partition("="))
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if name not in ("time", "memory") or name in values or not 0 < number < math.inf:
                raise UnusableInput(
                    f"--limits: expected time=SECONDS,memory=GIB, got {text!r}. Fix: write --limits time=120,memory=8."
                )
            values[name] = number
        memory = values.get("memory")
        return cls(values.get("time"), None if memory is None else memory * GIB)

    def reading_seconds(self, size: int) -> float:
        """Return the seconds for files of ``size`` bytes in all."""
        return max(SECONDS, size / READ_RATE) if self.seconds is None else self.seconds

    def reading_memory(self, size: int) -> float:
        """Return the bytes of memory for files of ``size`` bytes in all."""
        return min(max(MEMORY_FLOOR, MEMORY_FACTOR * size), self.total_memory()) if self.memory is None else self.memory

    def total_memory(self) -> float:
        """Return the bytes of memory for the whole command."""
        if self.memory is not None:
            return self.memory
        fraction = MACHINE_FRACTION if self.workers == 1 else MACHINE_FRACTION**2 / self.workers
        return fraction * machine_memory()


def budget_end(budget: float) -> float:
    """Return the seconds after which a command with a budget is ended from outside."""
    return budget + max(GRACE_SECONDS, GRACE_FRACTION * budget)


def size_of(paths: Iterable[str | Path]) -> int:
    """Return the bytes of plain files and of all plain files in folders; 0 for paths that do not exist."""
    return sum(_file_size(file) for path in paths for file in _files(Path(path)))


def _files(path: Path) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
    except (OSError, ValueError):
        return []
    found: list[Path] = []
    for folder, _, names in os.walk(path):
        found += [Path(folder, name) for name in names]
        if len(found) > MAX_FILES:
            break
    return found


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except (OSError, ValueError):
        return 0
