"""Labels as stored in tables and arrays: whole numbers or words, with one numbering over all splits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.core.errors import UnusableInput
from assay.data.class_names import as_numbers
from assay.data.request import MISSING, NO_LABELS, NamesFrom

# Mark of the hub for withheld labels.
WITHHELD = -1

LABEL_RANGE = 2**62  # larger whole numbers do not fit into int64 with certainty


@dataclass(frozen=True)
class RawLabels:
    """Labels of one split as stored: all numbers or all words; None for a sample without a label."""

    values: tuple[int | str | None, ...]

    @property
    def are_words(self) -> bool:
        """True for words, False for whole numbers."""
        return any(isinstance(value, str) for value in self.values)

    @property
    def missing(self) -> int:
        """Number of samples without a label."""
        return self.values.count(None)


@dataclass(frozen=True)
class NumberedLabels:
    """Labels of all splits in one numbering; ``MISSING`` for a sample without a label."""

    labels: Mapping[str, Tensor | None]  # by split
    class_names: tuple[str, ...] | None
    names_from: NamesFrom = NamesFrom.DATA


def parse_labels(values: Sequence[Any], where: str) -> RawLabels | None:
    """Return the labels of a split; None if all are withheld.

    Whole floats become whole numbers. Words keep their spelling.

    Args:
        values: Values of a column or array.
        where: Name of the place for error messages: file and column.

    Raises:
        UnusableInput: A value is no label.
    """
    if all(value is None or value == WITHHELD for value in values):
        return None
    parsed = tuple(_parse(value, row, where) for row, value in enumerate(values))
    kinds = {type(value) for value in parsed} - {type(None)}
    if len(kinds) > 1:
        raise UnusableInput(f"{where}: expected either whole numbers or words as labels, got both. Fix: {NO_LABELS}.")
    return RawLabels(parsed)


def number_labels(
    raw: Mapping[str, RawLabels | None],
    names: Mapping[str, Sequence[str] | None],
    words: Collection[str] = (),
) -> NumberedLabels:
    """Return all labels in one numbering.

    Words are numbered in alphabetical order, or by value if all are numbers. Lists of class names that differ between
    splits are joined: labels become words first.

    Args:
        raw: Labels by split.
        names: Class names by split, by label; None: unknown.
        words: All words of the source, also of samples that are not read.

    Raises:
        UnusableInput: One split has words and another one numbers, or a label is not in its list of names.
    """
    labelled = {split: found for split, found in raw.items() if found is not None}
    lists = {tuple(names.get(split) or ()) for split in labelled}
    if len(lists) > 1 and () not in lists:
        labelled = {split: _as_words(found, names[split] or (), split) for split, found in labelled.items()}
        lists = {()}
    kinds = {found.are_words for found in labelled.values()}
    if len(kinds) > 1:
        raise UnusableInput("expected either whole numbers or words as labels, got words in one split only")
    if kinds != {True}:
        found_names = max(lists, key=len) if lists else ()
        return NumberedLabels({split: _tensor(labelled.get(split)) for split in raw}, found_names or None)
    known = {value for found in labelled.values() for value in found.values if isinstance(value, str)} | set(words)
    listed = next(iter(lists)) if lists else ()
    ordered = listed if known <= set(listed) else ordered_words(known)
    order = {word: label for label, word in enumerate(ordered)}
    numbered = {
        split: RawLabels(tuple(None if value is None else order[str(value)] for value in found.values))
        for split, found in labelled.items()
    }
    origin = NamesFrom.DATA if ordered is listed else NamesFrom.WORDS
    return NumberedLabels({split: _tensor(numbered.get(split)) for split in raw}, tuple(ordered), origin)


def is_one_hot(array: np.ndarray) -> bool:
    """Return True for rows (N, K) with a single one and zeros."""
    if array.ndim != 2 or not len(array) or array.shape[1] < 2 or array.dtype.kind not in "iufb":
        return False
    return bool(((array == 0) | (array == 1)).all() and (array.sum(1) == 1).all())


def ordered_words(words: Iterable[str]) -> tuple[str, ...]:
    """Return words in alphabetical order; words that are different numbers, in the order of their values."""
    ordered = sorted(set(words))
    numbers = as_numbers(ordered)
    if numbers is None:
        return tuple(ordered)
    return tuple(word for _, word in sorted(zip(numbers, ordered, strict=True)))


def _parse(value: Any, row: int, where: str) -> int | str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return _text(value, row, where)
    if isinstance(value, float) and value != value:  # NaN marks a missing value in pandas
        return None
    if isinstance(value, Decimal) and value.is_finite() and value == int(value):
        value = int(value)
    if isinstance(value, int | float) and abs(value) < LABEL_RANGE and value == int(value):
        return int(value)
    shown = str(value)[:40] if isinstance(value, int | float) else f"{_kind(value)} ({str(value)[:40]})"
    raise UnusableInput(
        f"{where}: expected whole numbers or words as labels, got {shown} in row {row}. "
        f"Fix: name another column (label_column), or {NO_LABELS}."
    )


def _text(value: bytes, row: int, where: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise UnusableInput(f"{where}: expected words in UTF-8 as labels, got other bytes in row {row}") from None


def _kind(value: Any) -> str:
    kinds = {"list": "a list", "dict": "a struct", "tuple": "a list"}
    name = type(value).__name__
    return kinds.get(name, f"a {name}")


def _as_words(found: RawLabels, names: Sequence[str], split: str) -> RawLabels:
    """Return numbers as the words of their list."""
    values = []
    for value in found.values:
        if isinstance(value, int) and not 0 <= value < len(names):
            raise UnusableInput(
                f"split {split}: expected labels below {len(names)}, its number of classes, got {value}"
            )
        values.append(names[value] if isinstance(value, int) else value)
    return RawLabels(tuple(values))


def _tensor(found: RawLabels | None) -> Tensor | None:
    """Return labels (N,) int64, ``MISSING`` for a sample without one; None for no labels."""
    if found is None:
        return None
    return torch.tensor([MISSING if value is None else int(value) for value in found.values], dtype=torch.int64)
