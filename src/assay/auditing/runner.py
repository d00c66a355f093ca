"""Runs the tests of an audit: one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from assay.core.finding import Finding
from assay.core.progress import Progress, Step


class Job(NamedTuple):
    """One test to run."""

    name: str
    run: Callable[[Progress], Finding]
    failed: Callable[[str], Finding]  # reason -> finding of a test whose process ended early


def run_jobs(jobs: Iterator[Job], processes: int, step: Step) -> Iterator[tuple[str, Finding]]:
    """Run all jobs, and yield the name and the finding of each when it is done.

    Args:
        jobs: The jobs; each is taken when it can start.
        processes: Number of processes.
        step: Callback for the name of a job and its completed fraction; 0 at its start.

    Raises:
        Exception: That of a job.
    """
    del processes
    for job in jobs:
        progress = partial(step, job.name)
        progress(0.0)
        yield job.name, job.run(progress)
