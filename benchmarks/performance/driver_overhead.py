"""What the bench's driver costs beside the work: jobs that do nothing, on local processes.

python benchmarks/run.py driver_overhead [JOBS]   # -> benchmarks/results/driver_overhead.json
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib.results import save_result

from assay.bench import driver
from assay.bench.executors import LocalExecutor
from assay.bench.job import Outcome
from assay.bench.store import Store


@dataclass(frozen=True)
class Nothing:
    """A job without work; every hundredth needs the one before."""

    number: int

    kind = "nothing"

    @property
    def key(self) -> str:
        return f"nothing-{self.number}"

    def needs(self) -> Sequence[Nothing]:
        return (Nothing(self.number - 1),) if self.number % 100 == 99 else ()

    def about(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"nothing {self.number}"


def work(job: Nothing, blobs: str) -> Outcome:
    return Outcome("done", {"number": job.number})


def main(count: int) -> None:
    jobs = {job.key: job for job in map(Nothing, range(count))}
    memory: list[float] = []  # MiB, at every tenth of the run

    def note(now: driver.RunProgress) -> None:
        if now.done % max(1, count // 10) == 0:
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        executor = LocalExecutor(2)
        driver.run({"nothing-0": jobs["nothing-0"]}, store, executor, blobs=folder, work=work)  # the processes start
        executor = LocalExecutor(2)
        start = time.perf_counter()
        counts = driver.run(jobs, store, executor, blobs=folder, work=work, progress=note)
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


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 10_000)
