"""Reference models for tests, from their scores alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from assay.calibration.null import Null, Reference, Score


def scores_of(row: Mapping[str, float]) -> dict[str, Score]:
    """Of tests that name no class."""
    return {test: Score(value) for test, value in row.items()}


def null_of_rows(rows: Iterable[Mapping[str, float]]) -> Null:
    return Null("toys", "made for a test", tuple(Reference(scores_of(row)) for row in rows))
