"""Check of foreign values against type annotations."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from assay.core.typed import matches


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        *[(3, int), (3, float), (0.5, float), ("a", str), (None, int | None), ((1, 2), str | tuple[int, int])],
        *[((1, 2, 3), tuple[int, ...]), ("a", Literal["a", "b"]), (True, bool)],
    ],
)
def test_values_of_type(value: object, annotation: Any) -> None:
    assert matches(value, annotation)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        *[(True, int), (3.0, int), ("3", int), (True, float), (None, int), ((1, 2, 3), str | tuple[int, int])],
        *[((1, "a"), tuple[int, ...]), ("c", Literal["a", "b"]), ([1, 2], tuple[int, int]), (1, bool)],
    ],
)
def test_other_values(value: object, annotation: Any) -> None:
    assert not matches(value, annotation)
