"""Tests of progress callbacks."""

from __future__ import annotations

import pytest

from assay.core.progress import named, part


def test_part_of_a_part_stays_within_its_range() -> None:
    reported: list[float] = []
    outer = part(reported.append, 0.2, 0.6)
    for bar in (part(outer, 0.0, 0.5), part(outer, 0.5, 1.0)):
        bar(0.0)
        bar(1.0)
    assert reported == pytest.approx([0.2, 0.4, 0.4, 0.6])


def test_named_reports_the_name_with_each_fraction() -> None:
    reported: list[tuple[str, float]] = []
    named(lambda name, fraction: reported.append((name, fraction)), "training")(0.5)
    assert reported == [("training", 0.5)]
