"""Tests of progress callbacks."""

from __future__ import annotations

import pytest

from assay.core.progress import duration_in_words, named, part


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


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 seconds"),
        (0.9, "1 second"),
        (4.4, "4 seconds"),
        (33, "30 seconds"),
        (94, "90 seconds"),
        (100, "2 minutes"),
        (290, "5 minutes"),
        (5_700, "2 hours"),
    ],
)
def test_durations_in_words_are_as_precise_as_an_estimate(seconds: float, words: str) -> None:
    assert duration_in_words(seconds) == words
