"""The loop of a bench: jobs whose needs are done go to the executor, what comes back goes into the store."""

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

MOST_TRIES = 3
"""How often a job may lose its worker."""

SHARED = "what it needs ended as"
"""How the reason of a job starts that was not run."""

PATIENCE = 0.5
"""Seconds between two looks at what other drivers of the same store do."""


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    done: int
    total: int
    last: str  # what was done last, in words
    states: Mapping[State, int]


def run(
    jobs: Mapping[str, Job],
    store: Store,
    executor: Executor,
    *,
    blobs: str,
    work: Work,
    progress: Callable[[Progress], None] = lambda now: None,
) -> dict[State, int]:
    """Do every job that is not done: ``jobs`` by key, with all that they need. Returns how many ended how."""
    with store:
        store.add((key, job.kind, job.about()) for key, job in jobs.items())
        store.take_over()
        loop = _Loop(jobs, store, executor, blobs, work, progress)
        try:
            loop.go()
        finally:
            executor.close()
    return loop.counts


class _Loop:
    def __init__(
        self,
        jobs: Mapping[str, Job],
        store: Store,
        executor: Executor,
        blobs: str,
        work: Work,
        progress: Callable[[Progress], None],
    ) -> None:
        self.jobs, self.store, self.executor = jobs, store, executor
        self.blobs, self.work, self.progress = blobs, work, progress
        self.counts: dict[State, int] = {"done": 0, "failed": 0, "invalid": 0}
        self.running = 0
        self.ready: deque[str] = deque()
        self.elsewhere: set[str] = set()  # claimed by another driver
        self.left: dict[str, int] = {}  # by key: how many of its needs are not done
        self.after: dict[str, list[str]] = {}  # by key: what needs it
        self.ended: set[str] = set()
        for key, job in jobs.items():
            needs = [need.key for need in job.needs()]
            self.left[key] = len(needs)
            for need in needs:
                self.after.setdefault(need, []).append(key)
        self.ready.extend(key for key, count in self.left.items() if count == 0)
        states = store.states()
        for key in jobs:
            if states[key] in FINAL:
                self.end(key, states[key], "found")

    def go(self) -> None:
        while len(self.ended) < len(self.jobs):
            self.start_some()
            for key, outcome in self.executor.finished(PATIENCE if self.running else 0.0):
                self.running -= 1
                self.take(key, outcome)
            if not self.ready and self.running < self.executor.slots:
                self.look_elsewhere()

    def start_some(self) -> None:
        while self.ready and self.running < self.executor.slots:
            key = self.ready.popleft()
            if key in self.ended:
                continue
            if not self.store.claim(key):
                self.elsewhere.add(key)
                continue
            self.executor.submit(self.jobs[key], self.work, self.blobs)
            self.running += 1

    def take(self, key: str, outcome: Outcome | None) -> None:
        """What came back from the executor; None where the worker died."""
        if outcome is None:
            tries = self.store.lost(key)
            if tries < MOST_TRIES:
                self.ready.append(key)
                return
            self.store.claim(key)
            outcome = Outcome("failed", error=f"the worker died {tries} times")
        if outcome.state == "waiting":  # all others would end like it
            raise UnusableInput(
                f"{outcome.error} ({self.jobs[key]}). What was done is recorded: the same command goes on from there"
            )
        self.store.finish(
            key,
            outcome.state,
            result=outcome.result,
            error=outcome.error,
            seconds=outcome.seconds,
            place=outcome.place,
        )
        self.end(key, outcome.state, outcome.error or outcome.said)

    def end(self, key: str, state: State, why: str) -> None:
        """The job is done with; what needs it may start, or shares its fate."""
        if key in self.ended:
            return
        self.ended.add(key)
        self.elsewhere.discard(key)
        self.counts[state] += 1
        self.progress(Progress(len(self.ended), len(self.jobs), _words(self.jobs[key], state, why), self.counts))
        for later in self.after.get(key, ()):
            self.left[later] -= 1
            if later in self.ended:
                continue
            if state != "done":
                self.share(later, state, self.jobs[key], why)
            elif self.left[later] == 0:
                self.ready.append(later)

    def share(self, key: str, state: State, need: Job, why: str) -> None:
        """A job whose need failed, or whose attack missed its band, is not run."""
        if self.store.claim(key):
            self.store.finish(key, state, error=f"{SHARED} {state}: {_words(need, state, why)}")
        elif (record := self.store.record(key)) is not None and record.state in FINAL:
            state = record.state  # it was done before its need came to be what it is now
        self.end(key, state, why)

    def look_elsewhere(self) -> None:
        """Not enough to do here: see what other drivers have done, and take over from those that died."""
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
            time.sleep(PATIENCE)


def _words(job: Job, state: State, why: str) -> str:
    return f"{job}: {state}" + (f" ({why})" if why else "")
