"""Where jobs run: processes of this machine, one thread each, or a Ray cluster."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, final

from assay.bench.job import Job, Outcome
from assay.core.errors import UnusableInput, first_line

Work = Callable[[Any, str], Outcome]  # a job, and where models are kept


class Executor(Protocol):
    """Runs at most ``slots`` jobs at once."""

    @property
    def slots(self) -> int: ...

    def submit(self, job: Job, work: Work, blobs: str) -> None:
        """Start ``work(job, blobs)``."""
        ...

    def finished(self, seconds: float) -> list[tuple[str, Outcome | None]]:
        """Keys and outcomes of what has finished, after at most ``seconds``; None where the worker died."""
        ...

    def close(self) -> None:
        """Stop what runs."""
        ...


@final
class Local:
    """``processes`` of this machine. Each has a pool of its own, so that one that dies takes no other job with it."""

    def __init__(self, processes: int) -> None:
        self.slots = processes
        self._pools = [_pool() for _ in range(processes)]
        self._free = list(range(processes))
        self._running: dict[Future[Outcome], tuple[str, int]] = {}

    def submit(self, job: Job, work: Work, blobs: str) -> None:
        slot = self._free.pop()
        try:
            future = self._pools[slot].submit(work, job, blobs)
        except BrokenProcessPool:  # it died between two jobs
            self._pools[slot] = _pool()
            future = self._pools[slot].submit(work, job, blobs)
        self._running[future] = (job.key, slot)

    def finished(self, seconds: float) -> list[tuple[str, Outcome | None]]:
        done, _ = wait(self._running, timeout=seconds, return_when=FIRST_COMPLETED)
        outcomes: list[tuple[str, Outcome | None]] = []
        for future in done:
            key, slot = self._running.pop(future)
            outcome: Outcome | None
            try:
                outcome = future.result()
            except BrokenProcessPool:
                outcome = None
                self._pools[slot].shutdown(wait=False)
                self._pools[slot] = _pool()
            except (Exception, SystemExit) as error:  # of a job that does not keep to the rule of raising nothing
                outcome = _broken(error)
            self._free.append(slot)
            outcomes.append((key, outcome))
        return outcomes

    def close(self) -> None:
        for pool in self._pools:
            if self._running:  # else they are idle, and end when they are told
                for process in list((pool._processes or {}).values()):
                    process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)


def _pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # a forked torch may hang on its threads
    return ProcessPoolExecutor(1, context, _start_worker, (os.getpid(),))


def _start_worker(driver: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    os.environ["OMP_NUM_THREADS"] = "1"

    def end_with_the_driver() -> None:
        while os.getppid() == driver:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=end_with_the_driver, daemon=True).start()


@final
class Ray:
    """A Ray cluster: ``address`` as for ``ray.init``, "auto" for the one that runs here. One job a core."""

    def __init__(self, address: str) -> None:
        """Raises UnusableInput where Ray is not installed or the cluster is not there."""
        if not _answers(address):
            raise UnusableInput(f"--ray {address}: nothing answers there: start a node with `ray start --head`")
        try:
            import ray
        except ImportError:
            raise UnusableInput("--ray needs Ray: pip install 'assay[ray]'") from None
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UnusableInput(f"--ray {address}: there is no cluster: {' '.join(str(error).split())[:200]}") from None
        self._ray = ray
        self._running: dict[Any, str] = {}
        # A job that is lost comes back to the driver, which counts how often: Ray itself must not try again.
        one_core = ray.remote(num_cpus=1, max_retries=0, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
        self._remote = one_core(_call)

    @property
    def slots(self) -> int:
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def submit(self, job: Job, work: Work, blobs: str) -> None:
        self._running[self._remote.remote(work, job, blobs)] = job.key

    def finished(self, seconds: float) -> list[tuple[str, Outcome | None]]:
        if not self._running:
            time.sleep(seconds)
            return []
        done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        outcomes: list[tuple[str, Outcome | None]] = []
        for reference in done:
            key = self._running.pop(reference)
            try:
                outcomes.append((key, self._ray.get(reference)))
            except self._ray.exceptions.RayTaskError as error:  # the job itself, or what it takes to start it
                outcomes.append((key, _broken(error.cause)))
            except self._ray.exceptions.RayError:  # its worker or its node died
                outcomes.append((key, None))
        return outcomes

    def close(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._ray.shutdown()


def _call(work: Work, job: Job, blobs: str) -> Outcome:
    """What a node runs: Ray takes functions only, and ``work`` may be any callable."""
    return work(job, blobs)


def _broken(error: BaseException) -> Outcome:
    return Outcome("failed", error=f"{type(error).__name__}: {first_line(error)}")


def _answers(address: str) -> bool:
    """Whether somebody listens at ``host:port``: Ray itself waits for minutes. Other forms of address are Ray's."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return True
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return True
    except OSError:
        return False
