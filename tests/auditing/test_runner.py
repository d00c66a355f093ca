"""Tests of an audit in several processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import torch
from torch import nn

from assay.auditing import runner
from assay.auditing.runner import (
    Job,
    PlannedTest,
    default_processes,
    possible_processes,
    processes_in_words,
    run_jobs,
    threads_of,
)
from assay.core.finding import Evidence, Finding, Outcome
from assay.core.progress import Progress

SECONDS = 120  # after which a test that hangs fails


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """End a test that hangs: a process without its threads waits forever."""

    def end(number: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def job(*runs: Callable[[Progress], Finding], name: str = "test") -> Job:
    """Return a job of some functions, called name-0, name-1 ..."""

    def failed(reason: str) -> Finding:
        return Finding("failed", Outcome.FAILED, reason=reason)

    return tuple(PlannedTest(f"{name}-{number}", run, failed) for number, run in enumerate(runs))


def scored(progress: Progress) -> Finding:
    progress(0.5)
    return Finding("process", Outcome.SCORED, score=float(os.getpid()))


def searching(progress: Progress) -> Finding:
    """Follow a gradient with as many threads as there are."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 30 * 30, 5)).eval()
    x = torch.rand(64, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x).square().sum(), x)
    product = torch.rand(300, 300) @ torch.rand(300, 300)
    return Finding("search", Outcome.SCORED, score=float(gradient.sum() + product.sum()))


def results(jobs: list[Job], processes: int) -> tuple[dict[str, Finding], list[tuple[str, float]]]:
    steps: list[tuple[str, float]] = []
    found = dict(run_jobs(iter(jobs), processes, lambda name, fraction: steps.append((name, fraction))))
    return found, steps


def children() -> set[int]:
    """Return the children of this process."""
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:
        return set(map(int, file.read().split()))


def test_each_job_runs_in_a_process_of_its_own_and_reports_its_progress() -> None:
    before = children()
    found, steps = results([job(scored, scored, name=name) for name in "abc"], 2)
    pids = {test: finding.score for test, finding in found.items()}
    assert pids["a-0"] == pids["a-1"] != pids["b-0"] != os.getpid()
    assert len(set(pids.values())) == 3
    assert [fraction for name, fraction in steps if name == "b-1"] == [0.0, 0.5]
    assert children() == before


def test_one_process_is_this_one() -> None:
    found, steps = results([job(scored)], 1)
    assert found["test-0"].score == os.getpid()
    assert steps == [("test-0", 0.0), ("test-0", 0.5)]


def test_a_search_does_not_hang_after_a_fork_with_threads_and_gives_the_same() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = searching(lambda fraction: None)  # starts the pool of threads, which no fork has
        found, _ = results([job(searching)], 2)
    finally:
        torch.set_num_threads(threads)
    assert found["test-0"].score == pytest.approx(expected.score, rel=1e-5)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "ended by the signal SIGKILL, perhaps for lack of memory"),
        (lambda: os._exit(3), "ended with exit code 3, before its finding"),
    ],
)
def test_the_tests_of_a_dead_process_fail_with_one_line_and_the_others_go_on(
    end: Callable[[], None], words: str
) -> None:
    def dies(progress: Progress) -> Finding:
        end()
        return scored(progress)

    found, _ = results([job(scored, dies, scored, name="bad"), job(scored, name="good")], 2)
    assert (found["bad-0"].outcome, found["good-0"].outcome) == (Outcome.SCORED, Outcome.SCORED)
    assert {found[name].reason for name in ("bad-1", "bad-2")} == {f"its process {words}"}


def test_an_error_of_a_test_ends_the_run_and_all_processes() -> None:
    def raises(progress: Progress) -> Finding:
        raise RuntimeError("changed the weights")

    def waits(progress: Progress) -> Finding:
        signal.pause()
        return scored(progress)

    before = children()
    with pytest.raises(RuntimeError, match="changed the weights"):
        results([job(waits, name="long"), job(raises)], 2)
    assert children() == before


def test_an_interrupt_ends_all_processes() -> None:
    def waits(progress: Progress) -> Finding:
        with suppress(KeyboardInterrupt):
            signal.pause()
        return scored(progress)

    def jobs() -> Iterator[Job]:
        yield job(waits)
        raise KeyboardInterrupt

    before = children()
    with pytest.raises(KeyboardInterrupt):
        list(run_jobs(jobs(), 2, lambda name, fraction: None))
    assert children() == before


def test_a_finding_that_cannot_be_sent_fails_with_the_way_out() -> None:
    def local(progress: Progress) -> Finding:
        return Finding("local", Outcome.SCORED, score=1.0, evidence=Evidence(apply=lambda x: x))

    found, _ = results([job(local, scored)], 2)
    assert found["test-0"].outcome is Outcome.FAILED
    assert "Fix: run the audit in one process" in found["test-0"].reason
    assert found["test-1"].outcome is Outcome.SCORED


def test_default_processes_follow_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def default(cores: int, gib: float) -> tuple[int, int]:
        monkeypatch.setattr(runner, "available_cores", lambda: cores)
        monkeypatch.setattr(runner, "machine_memory", lambda: int(gib * 2**30))
        return default_processes(), threads_of(4)

    assert default(2, 64) == (1, 1)
    assert default(16, 64) == (8, 4)
    assert default(16, 8)[0] == 4
    assert default(1, 1)[0] == 1


def test_where_no_process_can_be_copied_the_tests_run_in_one_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    assert possible_processes(1) == (1, ())
    assert possible_processes(3) == (3, ())
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    processes, (note,) = possible_processes(3)
    assert processes == 1
    assert "in one process, not in 3: a process that uses a GPU" in note
    monkeypatch.delattr(os, "fork")
    assert "this system cannot copy a process" in possible_processes(3)[1][0]


def test_the_number_of_processes_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "available_cores", lambda: 16)
    assert processes_in_words(8) == "Processes: the tests run in 8 processes with 2 threads each; --jobs changes that"
    assert "in one process" in processes_in_words(1)
