"""Main loop of a bench: ready jobs go to the executor, and their outcomes to the store."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from assay.bench.executors import Executor, Work
from assay.bench.job import Job, Outcome
from assay.bench.records import FINAL, State
from assay.bench.store import Store
from assay.core.errors import UnusableInput
from assay.io.atomic import remove_abandoned
from assay.io.object_store import ObjectStore

MAX_TRIES = 3  # a job fails after it has lost this many workers
POLL_SECONDS = 0.5  # between two looks at the outcomes, and at the other drivers of the store
DEPENDENCY_ENDED = "what it needs ended as"  # start of the error of a job that was not run


@dataclass(frozen=True)
class RunProgress:
    """State of a run."""

    done: int
    total: int
    last: str  # description of the last job that ended
    states: Mapping[State, int]


def run(
    jobs: Mapping[str, Job],
    store: Store,
    executor: Executor,
    *,
    blobs: str,
    work: Work,
    progress: Callable[[RunProgress], None] = lambda now: None,
) -> dict[State, int]:
    """Run every job without a result. At the end, remove the temporary files of killed workers and drivers.

    Args:
        jobs: jobs by key, with their dependencies.
        store: the records.
        executor: runs the jobs; closed at the end.
        blobs: place of models and other files, passed to ``work``.
        work: computes a job.
        progress: called after each job.

    Returns:
        The number of jobs in each final state.

    Raises:
        UnusableInput: a shared resource (disk, object store, data) is unavailable. Finished jobs are recorded.
    """
    with store:
        store.add((key, job.kind, job.about()) for key, job in jobs.items())
        store.take_over()
        loop = _Loop(jobs, store, progress)
        try:
            loop.run(executor, lambda job: executor.submit(job, work, blobs))
        finally:
            executor.close()
            remove_abandoned(store.directory)
            ObjectStore(blobs).remove_abandoned()
    return loop.counts


class _Loop:
    def __init__(self, jobs: Mapping[str, Job], store: Store, progress: Callable[[RunProgress], None]) -> None:
        self.jobs, self.store, self.progress = jobs, store, progress
        self.counts: dict[State, int] = {"done": 0, "failed": 0, "invalid": 0}
        self.running = 0
        self.ready: deque[str] = deque()
        self.elsewhere: set[str] = set()  # claimed by another driver
        self.open_needs: dict[str, int] = {}  # by key: number of needed jobs that are not done
        self.dependents: dict[str, list[str]] = {}  # by key: jobs that need it
        self.ended: set[str] = set()
        for key, job in jobs.items():
            needs = [need.key for need in job.needs()]
            self.open_needs[key] = len(needs)
            for need in needs:
                self.dependents.setdefault(need, []).append(key)
        self.ready.extend(key for key, count in self.open_needs.items() if count == 0)
        states = store.states()
        for key in jobs:
            if states[key] in FINAL:
                self.end(key, states[key], "found")

    def run(self, executor: Executor, submit: Callable[[Job], None]) -> None:
        """Submit ready jobs and record outcomes until all jobs have ended."""
        while len(self.ended) < len(self.jobs):
            self.submit_ready(executor.slots, submit)
            for key, outcome in executor.collect(POLL_SECONDS if self.running else 0.0):
                self.running -= 1
                self.record(key, outcome)
            if not self.ready and self.running < executor.slots:
                self.check_other_drivers()

    def submit_ready(self, slots: int, submit: Callable[[Job], None]) -> None:
        while self.ready and self.running < slots:
            key = self.ready.popleft()
            if key in self.ended:
                continue
            if not self.store.claim(key):
                self.elsewhere.add(key)
                continue
            submit(self.jobs[key])
            self.running += 1

    def record(self, key: str, outcome: Outcome | None) -> None:
        """Record the outcome of a job; None after the loss of its worker."""
        if outcome is None:
            tries = self.store.record_lost_worker(key)
            if tries < MAX_TRIES:
                self.ready.append(key)
                return
            self.store.claim(key)
            outcome = Outcome("failed", error=f"the worker died {tries} times")
        if outcome.state == "waiting":  # all other jobs would end in the same way
            raise UnusableInput(
                f"{outcome.error} ({self.jobs[key]}). Finished cells are recorded. Fix it, and repeat the command"
            )
        self.store.finish(key, outcome)
        self.end(key, outcome.state, outcome.error or outcome.summary)

    def end(self, key: str, state: State, detail: str) -> None:
        """Count a job as ended. Dependent jobs become ready, or end in the same state."""
        if key in self.ended:
            return
        self.ended.add(key)
        self.elsewhere.discard(key)
        self.counts[state] += 1
        last = _description(self.jobs[key], state, detail)
        self.progress(RunProgress(len(self.ended), len(self.jobs), last, self.counts))
        for dependent in self.dependents.get(key, ()):
            self.open_needs[dependent] -= 1
            if dependent in self.ended:
                continue
            if state != "done":
                self.end_with_need(dependent, state, self.jobs[key], detail)
            elif self.open_needs[dependent] == 0:
                self.ready.append(dependent)

    def end_with_need(self, key: str, state: State, need: Job, detail: str) -> None:
        """End a job without running it, after a failed or invalid dependency."""
        if self.store.claim(key):
            error = f"{DEPENDENCY_ENDED} {state}: {_description(need, state, detail)}"
            self.store.finish(key, Outcome(state, error=error))
        elif (record := self.store.record(key)) is not None and record.state in FINAL:
            state = record.state  # from a run before the needed job changed
        self.end(key, state, detail)

    def check_other_drivers(self) -> None:
        """Look up the claimed jobs of other drivers, and take over those of dead drivers."""
        if not self.elsewhere:
            return
        if self.store.take_over():
            self.ready.extend(self.elsewhere)
            self.elsewhere.clear()
            return
        states = self.store.states()
        for key in list(self.elsewhere):
            if states[key] in FINAL:
                self.end(key, states[key], "done elsewhere")
            elif states[key] == "waiting":
                self.elsewhere.discard(key)
                self.ready.append(key)
        if self.elsewhere and not self.ready and not self.running:
            time.sleep(POLL_SECONDS)


def _description(job: Job, state: State, detail: str) -> str:
    return f"{job}: {state}" + (f" ({detail})" if detail else "")
