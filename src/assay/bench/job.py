"""Interface between the driver and its jobs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from assay.bench.records import State


def key_of(document: object) -> str:
    """Return the sha256 of a document of plain JSON types, independent of the order of its fields."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


class Job(Protocol):
    """Frozen dataclass of plain values, to send to other processes and machines, and to keep in the store."""

    @property
    def kind(self) -> str:
        """Name of the kind of work."""
        ...

    @property
    def key(self) -> str:
        """Key of the result: equal for jobs with equal results."""
        ...

    def needs(self) -> Sequence[Job]:
        """Return the direct dependencies."""
        ...

    def about(self) -> dict[str, Any]:
        """Return the fields in plain JSON types, for the record."""
        ...

    def __str__(self) -> str:
        """Return a description for users."""
        ...


@dataclass(frozen=True)
class Outcome:
    """Result and state of an ended job."""

    state: State  # waiting: a shared resource is unavailable, and ``error`` names it
    result: dict[str, Any] | None = None  # in plain JSON types
    error: str | None = None
    seconds: float = 0.0
    place: str = ""  # host and process
    summary: str = ""  # a few words for the progress line
