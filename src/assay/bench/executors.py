"""Execution of jobs: in processes of this machine, one thread each, or on a Ray cluster."""

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
from assay.sandbox.network import allow_network

Work = Callable[[Any, str], Outcome]  # (job, place of the models)

DRIVER_CHECK_SECONDS = 0.5  # a worker ends at most this long after its driver
CONNECT_SECONDS = 5  # for the check that a cluster answers


class Executor(Protocol):
    """Runs at most ``slots`` jobs at once."""

    @property
    def slots(self) -> int:
        """Maximum number of running jobs."""
        ...

    def submit(self, job: Job, work: Work, blobs: str) -> None:
        """Start ``work(job, blobs)``."""
        ...

    def collect(self, seconds: float) -> list[tuple[str, Outcome | None]]:
        """Return keys and outcomes of ended jobs; None after the loss of a worker. Waits at most ``seconds``."""
        ...

    def close(self) -> None:
        """Stop running jobs."""
        ...


@final
class LocalExecutor:
    """Processes of this machine. Each has a pool of its own, so that its death takes no other job with it."""

    def __init__(self, processes: int) -> None:
        self.slots = processes
        self._pools = [_new_pool() for _ in range(processes)]
        self._free = list(range(processes))
        self._running: dict[Future[Outcome], tuple[str, int]] = {}

    def submit(self, job: Job, work: Work, blobs: str) -> None:
        """Start ``work(job, blobs)`` in a free process."""
        slot = self._free.pop()
        try:
            future = self._pools[slot].submit(work, job, blobs)
        except BrokenProcessPool:  # it died between two jobs
            self._pools[slot] = _new_pool()
            future = self._pools[slot].submit(work, job, blobs)
        self._running[future] = (job.key, slot)

    def collect(self, seconds: float) -> list[tuple[str, Outcome | None]]:
        """Return the outcomes of ended jobs, and replace dead processes."""
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
                self._pools[slot] = _new_pool()
            except (Exception, SystemExit) as error:  # jobs should not raise, but some do
                outcome = _failure(error)
            self._free.append(slot)
            outcomes.append((key, outcome))
        return outcomes

    def close(self) -> None:
        """End all processes."""
        for pool in self._pools:
            if self._running:  # idle processes end by themselves
                for process in list((pool._processes or {}).values()):
                    process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)


def _new_pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # a forked torch may hang on its threads
    return ProcessPoolExecutor(1, context, _start_worker, (os.getpid(),))


def _start_worker(driver: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl-C
    os.environ["OMP_NUM_THREADS"] = "1"

    def end_with_driver() -> None:
        while os.getppid() == driver:
            time.sleep(DRIVER_CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=end_with_driver, daemon=True).start()


@final
class RayExecutor:
    """A Ray cluster, with one job per core."""

    def __init__(self, address: str) -> None:
        """Connect to a cluster.

        Args:
            address: as for ``ray.init``; "auto" is the cluster of this machine.

        Raises:
            UnusableInput: Ray is not installed, or the cluster does not answer.
        """
        allow_network()  # until the end of this process, which reads no foreign file itself
        if not _is_listening(address):
            raise UnusableInput(f"Ray at {address}: nothing answers there. Fix: start a node with `ray start --head`")
        try:
            import ray
        except ImportError:
            raise UnusableInput("a Ray cluster needs Ray. Fix: pip install 'assay[ray]'") from None
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UnusableInput(
                f"Ray at {address}: there is no cluster: {' '.join(str(error).split())[:200]}"
            ) from None
        self._ray = ray
        self._running: dict[Any, str] = {}
        # The driver counts how often a job was lost, so Ray itself must not try again.
        one_core = ray.remote(num_cpus=1, max_retries=0, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
        self._remote = one_core(_call)

    @property
    def slots(self) -> int:
        """Number of cores of the cluster."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def submit(self, job: Job, work: Work, blobs: str) -> None:
        """Start ``work(job, blobs)`` on a node."""
        self._running[self._remote.remote(work, job, blobs)] = job.key

    def collect(self, seconds: float) -> list[tuple[str, Outcome | None]]:
        """Return the outcomes of ended jobs."""
        if not self._running:
            time.sleep(seconds)
            return []
        done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        outcomes: list[tuple[str, Outcome | None]] = []
        for reference in done:
            key = self._running.pop(reference)
            try:
                outcomes.append((key, self._ray.get(reference)))
            except self._ray.exceptions.RayTaskError as error:  # raised by the job, or by the start of its process
                outcomes.append((key, _failure(error.cause)))
            except self._ray.exceptions.RayError:  # its worker or its node died
                outcomes.append((key, None))
        return outcomes

    def close(self) -> None:
        """Cancel running jobs and leave the cluster."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._ray.shutdown()


def _call(work: Work, job: Job, blobs: str) -> Outcome:
    """Run a job on a node. Ray accepts functions only, and ``work`` may be any callable."""
    return work(job, blobs)


def _failure(error: BaseException) -> Outcome:
    return Outcome("failed", error=f"{type(error).__name__}: {first_line(error)}")


def _is_listening(address: str) -> bool:
    """Return False if nothing listens at ``host:port``: Ray would wait for minutes. Other addresses pass."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return True
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False
