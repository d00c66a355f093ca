"""Lookup by name, with a suggestion for a misspelled name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from assay.core.errors import UnusableInput

T = TypeVar("T")


def lookup(name: str, known: Mapping[str, T], kind: str) -> T:
    """Return the entry of ``known`` with a name.

    Args:
        name: The name to look up.
        known: Entries by name.
        kind: Kind of the entries, for the error message.

    Raises:
        UnusableInput: No entry has that name. The message suggests the nearest name.
    """
    if name in known:
        return known[name]
    raise UnusableInput(f"there is no {kind} {name!r}; {suggestion(name, known)}known: {', '.join(known)}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean ...? `` with the nearest known name; empty if no name is near."""
    names = list(known)
    # A nested setting is often given without its prefix: ``size`` for ``patch.size``.
    near = difflib.get_close_matches(name, names, n=1) or [other for other in names if other.endswith(f".{name}")]
    return f"did you mean {near[0]}? " if near else ""
