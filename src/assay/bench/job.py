"""What the driver knows of the work that it hands out."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from assay.bench.store import State
from assay.errors import AssayError
from assay.formats.files import first_line


class Job(Protocol):
    """A frozen dataclass of plain values: it travels to other processes and machines, and is what the store keeps."""

    @property
    def kind(self) -> str: ...

    @property
    def key(self) -> str:
        """Names the result: equal where everything that the result depends on is equal."""
        ...

    def needs(self) -> Sequence[Job]:
        """What has to be done before."""
        ...

    def about(self) -> dict[str, Any]:
        """Its fields in plain JSON types, for the record."""
        ...

    def __str__(self) -> str:
        """In words, for people."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    state: State
    result: dict[str, Any] | None = None  # in plain JSON types
    error: str | None = None
    seconds: float = 0.0
    place: str = ""  # host and process


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
