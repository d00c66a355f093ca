"""Execution of a job's computation, with its exceptions turned into an outcome.

Separate from job.py, so that a driver starts without torch.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import torch

from assay.bench.job import Outcome
from assay.bench.records import State
from assay.core.errors import AssayError, Unreachable, first_line

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def run_guarded(
    compute: Callable[[], dict[str, Any]], *, summarize: Callable[[dict[str, Any]], str] = lambda result: ""
) -> Outcome:
    """Run ``compute`` with one thread and return its outcome; exceptions become the state *failed*.

    The state is *invalid* if the result has ``valid: False``. The state is *waiting* after an error of
    the disk or of another shared resource: the job is not at fault.

    Args:
        compute: returns a result in plain JSON types.
        summarize: returns a few words about a result, for the progress line.
    """
    torch.set_num_threads(1)
    start = time.perf_counter()
    state: State = "done"
    result, error = None, None
    try:
        result = compute()
        state = "invalid" if result.get("valid") is False else "done"
    except Unreachable as exception:
        state, error = "waiting", str(exception)
    except AssayError as exception:
        state, error = "failed", str(exception)
    except OSError as exception:
        state = "waiting" if exception.errno in _DISK_ERRORS else "failed"
        error = f"{exception.filename or 'a file'}: {exception.strerror or first_line(exception)}"
    except Exception as exception:  # an error of one job must not end the run
        state, error = "failed", f"{type(exception).__name__}: {first_line(exception)}"
    if error is not None:
        error = error.encode("utf-8", "backslashreplace").decode()  # file names may hold any bytes
    place = f"{socket.gethostname()}:{os.getpid()}"
    return Outcome(state, result, error, time.perf_counter() - start, place, summarize(result) if result else "")
