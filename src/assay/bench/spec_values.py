"""Typed values of a YAML document. Every function raises UnusableInput as ``place: expected X, got Y``."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from assay.core.errors import UnusableInput
from assay.core.lookup import lookup

shown = reprlib.repr  # a value in a message, shortened


def known_mapping(value: Any, position: str, known: Sequence[str], *, needed: Sequence[str] = ()) -> Mapping[str, Any]:
    """Return a mapping with keys out of ``known``, including all of ``needed``."""
    if not isinstance(value, Mapping):
        raise UnusableInput(f"{position}: expected keys out of {', '.join(known)}, got {shown(value)}")
    for key in value:
        lookup(str(key), dict.fromkeys(known), f"key in {position}")
    missing = [key for key in needed if key not in value]
    if missing:
        raise UnusableInput(f"{position}: expected the key {missing[0]!r}, which is missing")
    return value


def named_mapping(value: Any, position: str) -> dict[str, Any]:
    """Return a mapping from non-empty names."""
    if not isinstance(value, Mapping):
        raise UnusableInput(f"{position}: expected names with a value each, got {shown(value)}")
    return {word(name, position): entry for name, entry in value.items()}


def non_empty_mapping(value: Any, position: str) -> dict[str, Any]:
    """Return a mapping from at least one name."""
    named = named_mapping(value, position)
    if not named:
        raise UnusableInput(f"{position}: expected at least one, got none")
    return named


def non_empty_list(value: Any, position: str) -> list[Any]:
    """Return a list of at least one element."""
    if not isinstance(value, list) or not value:
        raise UnusableInput(f"{position}: expected a list, got {shown(value)}")
    return value


def word(value: Any, position: str) -> str:
    """Return a text with at least one visible character."""
    if not isinstance(value, str) or not value.strip():
        raise UnusableInput(f"{position}: expected a word, got {shown(value)}")
    return value


def integer(value: Any, position: str, *, minimum: int = 0, maximum: int | None = None) -> int:
    """Return an integer in [``minimum``, ``maximum``]; booleans are refused."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or value < minimum or (maximum is not None and value > maximum):
        limits = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise UnusableInput(f"{position}: expected a whole number {limits}, got {shown(value)}")
    return int(value)


def fraction(value: Any, position: str) -> float:
    """Return a number in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UnusableInput(f"{position}: expected a number from 0 to 1, got {shown(value)}")
    return float(value)
