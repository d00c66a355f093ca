"""What the driver knows of the work that it hands out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from assay.bench.records import State


def key_of(document: object) -> str:
    """sha256 over plain JSON types: the same for equal documents, whatever the order of their fields."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


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

    state: State  # waiting: what it needs from its surroundings is not there, and ``error`` says what
    result: dict[str, Any] | None = None  # in plain JSON types
    error: str | None = None
    seconds: float = 0.0
    place: str = ""  # host and process
    said: str = ""  # in a few words, for those who watch
