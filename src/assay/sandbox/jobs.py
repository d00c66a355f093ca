"""A job of a worker in a process of its own, under limits.

A server process imports the heavy packages once and never computes. It forks for each job. A fork of the worker itself
could hang on threads of torch or Ray.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from assay.core.errors import UnusableInput
from assay.sandbox import phases
from assay.sandbox.limits import Limits
from assay.sandbox.network import refuse_network
from assay.sandbox.processes import end_with_parent, kill_tree
from assay.sandbox.watch import Watch


class JobDied(UnusableInput):
    """Job whose process crashed, or exceeded a limit."""


def run_in_box(
    function: Callable[..., dict[str, Any]],
    arguments: Sequence[Any],
    *,
    name: str,
    limits: Limits,
    preload: Sequence[str] = (),
) -> dict[str, Any]:
    """Return ``function(*arguments)``, computed in a process of its own.

    Args:
        function: A function of a module, with a result in plain JSON types.
        arguments: Its arguments.
        name: Name of the job, for error messages.
        limits: Limits of time and memory.
        preload: Modules that the server imports once.

    Raises:
        JobDied: The process crashed, or exceeded a limit.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_compute, args=(theirs, function, arguments), daemon=False)
    process.start()
    theirs.close()
    assert process.pid is not None
    watch = Watch(process.pid, ours.fileno(), limits)
    try:
        while process.exitcode is None:
            problem = watch.look()
            if problem is not None:
                raise JobDied(problem)
            if watch.is_overdue:
                break
        watch.read(0.0)
    finally:
        if process.exitcode is None:
            kill_tree(process.pid)
        process.join()
        ours.close()
    if watch.result is None or not isinstance(watch.result.get("outcome"), dict):
        code = process.exitcode or 0
        end = f"by the signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        raise JobDied(
            f"{name}: expected a result, got the end of its process {end}. "
            "Fix: do not use a file that breaks its reader."
        )
    return dict(watch.result["outcome"])


def _compute(pipe: Connection, function: Callable[..., dict[str, Any]], arguments: Sequence[Any]) -> None:
    """Run the job in the forked process, and send its result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl-C
    end_with_parent(os.getppid())
    phases.LINK.pipe = pipe.fileno()
    refuse_network()
    phases.LINK.send(outcome=function(*arguments))
