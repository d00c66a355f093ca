"""The guard around a job's work, in the worker; apart from job.py, so that a driver starts without torch."""

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

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def attempt(
    compute: Callable[[], dict[str, Any]], *, say: Callable[[dict[str, Any]], str] = lambda result: ""
) -> Outcome:
    """What ``compute`` comes to, with one thread; invalid where its result says so. Never raises what it raises.

    Where the disk or what the work rests on is at fault, the job is *waiting* as before.
    """
    torch.set_num_threads(1)
    start = time.perf_counter()
    state: State = "done"
    result, error = None, None
    try:
        result = compute()
        state = "invalid" if result.get("valid") is False else "done"
    except Unreachable as why:
        state, error = "waiting", str(why)
    except AssayError as why:
        state, error = "failed", str(why)
    except OSError as why:
        state = "waiting" if why.errno in _OF_THE_DISK else "failed"
        error = f"{why.filename or 'a file'}: {why.strerror or first_line(why)}"
    except Exception as why:  # one job's fault must not end the run
        state, error = "failed", f"{type(why).__name__}: {first_line(why)}"
    if error is not None:
        error = error.encode("utf-8", "backslashreplace").decode()  # names of files may be any bytes
    place = f"{socket.gethostname()}:{os.getpid()}"
    return Outcome(state, result, error, time.perf_counter() - start, place, say(result) if result else "")
