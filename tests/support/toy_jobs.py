"""Jobs that cost nothing, for the tests of what hands them out. Run as a script, this is a driver to be killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from assay.bench.driver import run
from assay.bench.executors import Executor, Local, Ray
from assay.bench.job import Outcome
from assay.bench.store import Store


@dataclass(frozen=True)
class ToyJob:
    """``number`` squared; it may need others, be slow, fail, miss its band, or kill its worker."""

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
    """What a worker does; it notes in ``place`` that it started and that it ended."""
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
        return Outcome("failed", error="it was told to fail")
    return Outcome("invalid" if job.ends == "invalid" else "done", {"square": job.number**2}, seconds=job.seconds)


def note(place: str, line: str) -> None:
    with Path(place).open("a") as file:
        file.write(line + "\n")


def seen(place: str, line: str) -> bool:
    return line in Path(place).read_text().splitlines()


def tree(count: int, seconds: float) -> dict[str, ToyJob]:
    """Jobs in which each but the first needs the one of half its number."""
    jobs = [ToyJob(n, (n // 2,) if n else (), seconds) for n in range(count)]
    return {job.key: job for job in jobs}


if __name__ == "__main__":  # DIRECTORY COUNT [ADDRESS of a Ray cluster]
    directory, count = Path(sys.argv[1]), int(sys.argv[2])
    executor: Executor = Ray(sys.argv[3]) if sys.argv[3:] else Local(2)
    run(tree(count, 0.1), Store(directory), executor, blobs=str(directory / "notes"), work=square)
