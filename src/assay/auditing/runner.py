"""Runs the tests of an audit: one after another, or in several processes.

A process is a fork: it shares the model and the traced copies with this one, and nothing is pickled but its findings.
Threads do not survive a fork, and a pool of OpenMP without its threads waits forever. The tests therefore run in a new
thread of the fork, which gets a pool of its own.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, NamedTuple

import torch

from assay.core.finding import Finding
from assay.core.progress import Progress, Step
from assay.sandbox import phases
from assay.sandbox.processes import available_cores, end_with_parent, machine_memory, sendable_error

THREADS = 2  # of one process: two threads were measured to use 1.9 of 2 cores, and more were not measured
PROCESS_MEMORY = 2 * 2**30  # bytes that each process may need; a ResNet-20 needs 1 GB


class PlannedTest(NamedTuple):
    """One test to run."""

    name: str
    run: Callable[[Progress], Finding]
    failed: Callable[[str], Finding]  # reason -> finding of a test whose process ended early


Job = tuple[PlannedTest, ...]  # tests for one process, one after another
Result = tuple[str, Finding]  # name of the test, and its finding


def default_processes() -> int:
    """Return the number of processes for the cores and the memory of this machine."""
    return max(1, min(available_cores() // THREADS, machine_memory() // PROCESS_MEMORY))


def threads_of(processes: int) -> int:
    """Return the number of threads of each of some processes."""
    return max(1, available_cores() // processes) if processes > 1 else torch.get_num_threads()


def processes_in_words(processes: int) -> str:
    """Return a sentence on the processes that run the tests."""
    threads = threads_of(processes)
    with_threads = f"with {threads} thread{'' if threads == 1 else 's'}"
    if processes == 1:
        return f"Processes: the tests run in one process {with_threads}; --jobs changes that"
    return f"Processes: the tests run in {processes} processes {with_threads} each; --jobs changes that"


def possible_processes(wanted: int) -> tuple[int, tuple[str, ...]]:
    """Return the number of processes that can run the tests here, and a note if it is not the wanted one.

    Args:
        wanted: Number of processes that the user wants.
    """
    if wanted == 1:
        return 1, ()
    if not hasattr(os, "fork"):
        return 1, (f"the tests run in one process, not in {wanted}: this system cannot copy a process",)
    if torch.cuda.is_initialized():
        return 1, (f"the tests run in one process, not in {wanted}: a process that uses a GPU cannot be copied",)
    return wanted, ()


def run_jobs(jobs: Iterator[Job], processes: int, step: Step) -> Iterator[Result]:
    """Run all tests, and yield each finding when it is there.

    Args:
        jobs: Each is taken when it can start.
        processes: Number of processes; 1: the tests run in this one.
        step: Callback for the name of a test and its completed fraction; 0 at its start.

    Raises:
        Exception: That of a test.
    """
    if processes > 1:
        yield from _run_in_processes(jobs, processes, step)
        return
    for job in jobs:
        for test in job:
            step(test.name, 0.0)
            yield test.name, test.run(partial(step, test.name))


@dataclass
class _Worker:
    """A process, and its tests without a finding."""

    pid: int
    tests: list[PlannedTest]


def _run_in_processes(jobs: Iterator[Job], processes: int, step: Step) -> Iterator[Result]:
    workers: dict[Connection, _Worker] = {}
    threads = threads_of(processes)
    try:
        for job in jobs:
            while len(workers) >= processes:
                yield from _results(workers, step)
            connection, worker = _start(job, threads)
            workers[connection] = worker
        while workers:
            yield from _results(workers, step)
    finally:
        for connection, worker in workers.items():
            os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)
            connection.close()


def _results(workers: dict[Connection, _Worker], step: Step) -> Iterator[Result]:
    """Wait for messages of the processes, and yield the findings among them. Ended processes leave ``workers``."""
    for connection in wait(list(workers)):
        assert isinstance(connection, Connection)
        worker = workers[connection]
        try:
            # Only messages of this program's own forks: no data of a model's author is unpickled.
            kind, name, content = pickle.loads(connection.recv_bytes())
        except EOFError:
            del workers[connection]
            connection.close()
            how = _end_of(worker.pid)
            yield from ((test.name, test.failed(f"its process {how}")) for test in worker.tests)
            continue
        if kind == "progress":
            step(name, content)
        elif kind == "error":
            raise content
        else:
            worker.tests = [test for test in worker.tests if test.name != name]
            yield name, content


def _end_of(pid: int) -> str:
    """Wait for the end of a process, and return it in words."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code >= 0:
        return f"ended with exit code {code}, before its finding"
    lack = ", perhaps for lack of memory" if -code == signal.SIGKILL else ""
    return f"ended by the signal {signal.Signals(-code).name}{lack}"


def _start(job: Job, threads: int) -> tuple[Connection, _Worker]:
    """Start a process for some tests.

    Args:
        job: The tests.
        threads: Number of its threads.
    """
    ours, theirs = Pipe(duplex=False)
    parent = os.getpid()
    with warnings.catch_warnings():  # Python 3.12 warns of forks with threads; see the docstring of this module
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            end_with_parent(parent)
            _enter_process()
            thread = threading.Thread(target=_run_job, args=(job, theirs, threads))
            thread.start()
            thread.join()
        finally:
            os._exit(0)
    theirs.close()
    return ours, _Worker(pid, list(job))


def _enter_process() -> None:
    """Let go of what belongs to the first process: signals, its supervisor, the lock of standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    phases.LINK.pipe = None
    try:
        sys.stderr = open(os.dup(sys.stderr.fileno()), "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    except (AttributeError, OSError, ValueError):  # it is no file
        return


def _run_job(job: Job, connection: Connection, threads: int) -> None:
    """Run tests, and send their findings."""
    torch.set_num_threads(threads)

    def send(kind: str, name: str, content: Any) -> None:
        connection.send_bytes(pickle.dumps((kind, name, content)))

    for test in job:
        send("progress", test.name, 0.0)
        try:
            finding = test.run(partial(send, "progress", test.name))
        except Exception as error:
            send("error", test.name, sendable_error(error))
            return
        try:
            send("finding", test.name, finding)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            reason = f"its finding cannot leave its process: {error}. Fix: run the audit in one process"
            send("finding", test.name, test.failed(reason))
