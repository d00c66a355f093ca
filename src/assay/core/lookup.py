"""One of several names."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

from assay.core.errors import UnusableInput

T = TypeVar("T")


def chosen(name: str, known: Mapping[str, T], what: str) -> T:
    """What is called ``name``; raises UnusableInput with the nearest name where nothing is."""
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UnusableInput(f"there is no {what} {name!r}; {hint}known: {', '.join(known)}")
