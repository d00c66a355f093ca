"""Main loop of the bench: order, dependencies, lost workers and killed drivers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from support.toy_jobs import ToyJob, note, square, tree

from assay.bench import driver
from assay.bench.executors import LocalExecutor
from assay.bench.records import Record
from assay.bench.store import Store
from assay.core.errors import UnusableInput

pytestmark = pytest.mark.slow


TESTS = Path(__file__).parents[1]


@pytest.fixture
def place(tmp_path: Path) -> str:
    note(str(tmp_path / "notes"), "")
    return str(tmp_path / "notes")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store")
    yield store
    store.close()


def by_number(store: Store) -> dict[int, Record]:
    return {record.about["number"]: record for record in store.records()}


def go(jobs: Mapping[str, ToyJob], store: Store, place: str, workers: int = 2) -> Mapping[str, int]:
    return driver.run(jobs, store, LocalExecutor(workers), blobs=place, work=square)


def test_every_job_runs_once_after_its_dependencies(store: Store, place: str) -> None:
    seen: list[driver.RunProgress] = []
    counts = driver.run(tree(15, 0.0), store, LocalExecutor(2), blobs=place, work=square, progress=seen.append)
    assert counts == {"done": 15, "failed": 0, "invalid": 0}
    lines = [line for line in Path(place).read_text().splitlines() if line]
    assert Counter(lines).most_common(1)[0][1] == 1
    for number in range(2, 15):
        assert lines.index(f"end {number // 2}") < lines.index(f"start {number}")
    assert {n: r.result for n, r in by_number(store).items()} == {n: {"square": n * n} for n in range(15)}
    assert [now.done for now in seen] == list(range(1, 16))
    assert seen[-1].total == 15


def test_second_run_does_missing_jobs_only(store: Store, place: str) -> None:
    go(tree(4, 0.0), store, place)
    counts = go(tree(7, 0.0), store, place)
    assert counts["done"] == 7
    started = [line for line in Path(place).read_text().splitlines() if line.startswith("start")]
    assert sorted(started) == sorted(f"start {n}" for n in range(7))


def test_dependents_of_failed_and_invalid_jobs_end_in_same_state(store: Store, place: str) -> None:
    jobs = [
        ToyJob(0, ends="failed"),
        ToyJob(1, (0,)),
        ToyJob(2, (1,)),
        ToyJob(3, ends="invalid"),
        ToyJob(4, (3,)),
        ToyJob(5),
    ]
    counts = go({job.key: job for job in jobs}, store, place)
    assert counts == {"done": 1, "failed": 3, "invalid": 2}
    records = by_number(store)
    assert [records[n].state for n in range(6)] == ["failed", "failed", "failed", "invalid", "invalid", "done"]
    assert records[0].error == "a failure on purpose"
    assert "toy 0" in str(records[1].error)
    assert not any(f"start {n}" in Path(place).read_text().splitlines() for n in (1, 2, 4))


def test_job_with_dead_worker_is_repeated_alone(store: Store, place: str) -> None:
    jobs = [ToyJob(0, ends="worker-dies-once"), *(ToyJob(n, seconds=0.3) for n in range(1, 4))]
    counts = go({job.key: job for job in jobs}, store, place)
    assert counts == {"done": 4, "failed": 0, "invalid": 0}
    lines = Path(place).read_text().splitlines()
    assert lines.count("start 0") == 2
    assert [lines.count(f"start {n}") for n in range(1, 4)] == [1, 1, 1]


def test_job_fails_after_three_dead_workers(store: Store, place: str) -> None:
    counts = go({job.key: job for job in (ToyJob(0, ends="worker-dies"), ToyJob(1))}, store, place)
    assert counts == {"done": 1, "failed": 1, "invalid": 0}
    assert "died 3 times" in str(by_number(store)[0].error)


def test_unavailable_resource_stops_run_and_fails_no_job(store: Store, place: str) -> None:
    jobs = [ToyJob(0), ToyJob(1, (0,), ends="waiting"), ToyJob(2, (1,))]
    with pytest.raises(UnusableInput, match=r"the disk is full .*toy 1.*repeat the command"):
        go({job.key: job for job in jobs}, store, place, workers=1)
    assert [by_number(store)[n].state for n in range(3)] == ["done", "waiting", "waiting"]
    assert go({job.key: job for job in (ToyJob(0), ToyJob(1, (0,)), ToyJob(2, (1,)))}, store, place)["done"] == 3


def test_job_that_exits_fails_alone(store: Store, place: str) -> None:
    counts = go({job.key: job for job in (ToyJob(0, ends="exits"), ToyJob(1))}, store, place)
    assert counts == {"done": 1, "failed": 1, "invalid": 0}
    assert "SystemExit" in str(by_number(store)[0].error)


def test_failed_jobs_can_be_repeated(store: Store, place: str) -> None:
    go({"toy-0": ToyJob(0, ends="failed")}, store, place)
    store.requeue_failed(["toy-0"])
    assert go({"toy-0": ToyJob(0)}, store, place)["done"] == 1


def test_run_removes_temporary_files_of_killed_processes(store: Store, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    name = ".0123456789ab.assay-tmp"
    for place in (blobs / "deep", store.directory):
        place.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    executor = LocalExecutor(1)
    driver.run({}, store, executor, blobs=str(blobs), work=square)
    assert not list(tmp_path.rglob(name))


def drive(directory: Path, count: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(
        [sys.executable, str(TESTS / "support/toy_jobs.py"), str(directory), str(count)],
        env=environment,
        stderr=subprocess.DEVNULL,
    )


def children(pid: int) -> list[int]:
    text = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(word) for word in text.split()]


def done(directory: Path) -> set[str]:
    notes = directory / "notes"
    return {line for line in notes.read_text().splitlines() if line.startswith("end")} if notes.exists() else set()


def test_two_drivers_share_one_store(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    both = [drive(directory, 40) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    lines = [line for line in (directory / "notes").read_text().splitlines() if line]
    assert Counter(lines) == Counter(f"{what} {n}" for what in ("start", "end") for n in range(40))
    store = Store(directory)
    assert {record.state for record in store.records()} == {"done"}
    store.close()


def test_killed_driver_loses_running_jobs_only(tmp_path: Path) -> None:
    directory, count, chance = tmp_path / "store", 200, random.Random(0)
    for kill in range(20):
        process = drive(directory, count)
        time.sleep(0.7 + 0.8 * chance.random())  # starting an interpreter and two workers takes part of it
        for victim in children(process.pid) if kill % 2 else [process.pid]:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        if kill % 2:  # the driver survives, and gives their jobs to new workers
            before = len(done(directory))
            waited = time.monotonic() + 20
            while len(done(directory)) == before and process.poll() is None and time.monotonic() < waited:
                time.sleep(0.05)
            assert len(done(directory)) > before or process.poll() == 0
        process.kill()
        process.wait(timeout=30)
    assert drive(directory, count).wait(timeout=120) == 0
    store = Store(directory)
    records = list(store.records())
    store.close()
    assert list((directory / "drivers").iterdir()) == []  # the locks of killed drivers
    notes = Counter((directory / "notes").read_text().splitlines())
    assert sum(notes[f"start {n}"] for n in range(count)) > count  # lost jobs were repeated
    assert all(notes[f"end {n}"] for n in range(count))
    assert {record.about["number"]: record.result for record in records} == {n: {"square": n * n} for n in range(count)}
