"""Overhead of the bench's driver: empty jobs on local processes.

python benchmarks/run.py driver_overhead [JOBS]   # -> benchmarks/results/driver_overhead.json
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib import commands
from lib.results import save_result

from assay.bench import driver
from assay.bench.executors import LocalExecutor
from assay.bench.job import Outcome
from assay.bench.store import Store


@dataclass(frozen=True)
class EmptyJob:
    """A job without work. Every hundredth needs the previous one."""

    number: int

    kind = "nothing"

    @property
    def key(self) -> str:
        return f"nothing-{self.number}"

    def needs(self) -> Sequence[EmptyJob]:
        return (EmptyJob(self.number - 1),) if self.number % 100 == 99 else ()

    def about(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"nothing {self.number}"


def work(job: EmptyJob, blobs: str) -> Outcome:
    """Return an empty result."""
    return Outcome("done", {"number": job.number})


def main(count: int) -> None:
    """Run ``count`` jobs, and write the result file."""
    jobs = {job.key: job for job in map(EmptyJob, range(count))}
    memory: list[float] = []  # MiB, after every tenth of the run

    def record_memory(now: driver.RunProgress) -> None:
        if now.done % max(1, count // 10) == 0:
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        executor = LocalExecutor(2)
        driver.run({"nothing-0": jobs["nothing-0"]}, store, executor, blobs=folder, work=work)  # starts the processes
        executor = LocalExecutor(2)
        start = time.perf_counter()
        counts = driver.run(jobs, store, executor, blobs=folder, work=work, progress=record_memory)
        seconds = time.perf_counter() - start
        store.close()
    save_result(
        "driver_overhead",
        {
            "jobs": count,
            "counts": counts,
            "processes": 2,
            "milliseconds_a_job": 1000 * seconds / count,
            "peak_mib_by_tenth": memory,
        },
    )


def cli() -> None:
    """Run the command line."""
    command_line = commands.parser(__doc__)
    command_line.add_argument("count", nargs="?", type=int, default=10_000, metavar="JOBS")
    main(command_line.parse_args().count)
