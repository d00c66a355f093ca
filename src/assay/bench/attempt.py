"""The guard around a job's work, in the worker; apart from job.py, so that a driver starts without torch."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any

import torch

from assay.bench.job import Outcome
from assay.bench.records import State
from assay.errors import AssayError
from assay.formats.files import first_line


def attempt(compute: Callable[[], dict[str, Any]]) -> Outcome:
    """What ``compute`` comes to, with one thread; invalid where its result says so. Never raises what it raises."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    state: State = "done"
    result, error = None, None
    try:
        result = compute()
        state = "invalid" if result.get("valid") is False else "done"
    except AssayError as why:
        state, error = "failed", str(why)
    except Exception as why:  # one job's fault must not end the run
        state, error = "failed", f"{type(why).__name__}: {first_line(why)}"
    if error is not None:
        error = error.encode("utf-8", "backslashreplace").decode()  # names of files may be any bytes
    return Outcome(state, result, error, time.perf_counter() - start, f"{socket.gethostname()}:{os.getpid()}")
