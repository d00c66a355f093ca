"""Cheap jobs for tests of the driver. As a script, this file is a driver for tests to kill."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from assay.bench.driver import run
from assay.bench.executors import Executor, LocalExecutor, RayExecutor
from assay.bench.job import Outcome
from assay.bench.store import Store


@dataclass(frozen=True)
class ToyJob:
    """Squares ``number``. It may need other jobs, be slow, fail, be invalid, or kill its worker."""

    number: int
    before: tuple[int, ...] = ()
    seconds: float = 0.0
    ends: str = "done"  # or failed, invalid, waiting, exits, worker-dies, worker-dies-once

    kind = "toy"

    @property
    def key(self) -> str:
        return f"toy-{self.number}"

    def needs(self) -> tuple[ToyJob, ...]:
        return tuple(ToyJob(number) for number in self.before)

    def about(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"toy {self.number}"


def square(job: ToyJob, place: str) -> Outcome:
    """Compute the job in a worker, and note its start and end in the file ``place``."""
    note(place, f"start {job.number}")
    time.sleep(job.seconds)
    if job.ends == "worker-dies" or (job.ends == "worker-dies-once" and not seen(place, f"died {job.number}")):
        note(place, f"died {job.number}")
        os.kill(os.getpid(), signal.SIGKILL)
    note(place, f"end {job.number}")
    if job.ends == "exits":
        sys.exit(3)
    if job.ends == "waiting":
        return Outcome("waiting", error="the disk is full")
    if job.ends == "failed":
        return Outcome("failed", error="a failure on purpose")
    return Outcome("invalid" if job.ends == "invalid" else "done", {"square": job.number**2}, seconds=job.seconds)


def note(place: str, line: str) -> None:
    with Path(place).open("a") as file:
        file.write(line + "\n")


def seen(place: str, line: str) -> bool:
    return line in Path(place).read_text().splitlines()


def tree(count: int, seconds: float) -> dict[str, ToyJob]:
    """Return jobs 0 to ``count`` - 1. Each job but the first needs the job of half its number."""
    jobs = [ToyJob(n, (n // 2,) if n else (), seconds) for n in range(count)]
    return {job.key: job for job in jobs}


if __name__ == "__main__":  # DIRECTORY COUNT [ADDRESS of a RayExecutor cluster]
    directory, count = Path(sys.argv[1]), int(sys.argv[2])
    executor: Executor = RayExecutor(sys.argv[3]) if sys.argv[3:] else LocalExecutor(2)
    run(tree(count, 0.1), Store(directory), executor, blobs=str(directory / "notes"), work=square)
