"""Numbers and names as people read them."""

import math

import pytest

from assay.report import words


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0, "1 in 1,000,000"), (1 / 129, "1 in 129"), (0.05, "1 in 20"), (0.43, "43 in 100"), (1, "99 in 100")],
)
def test_odds(p, text):
    assert words.odds(p) == text


def test_numbers():
    assert [words.number(value) for value in (None, math.nan, math.inf, -1.2345, 1234.5)] == [
        "–",
        "not a number",
        "∞",
        "−1.23",
        "1234",
    ]
    assert words.p_text(0.0) == "< 0.0001"
    assert words.duration(0.01) == "< 0.1 s"
    assert words.duration(125) == "2 min 05 s"


def test_what_hides_is_spelled_out():
    assert words.visible("a\nb\u202ec\udcffד") == "a\\x0ab\\u202ec\\udcffד"
    assert len(words.visible("x" * 5000, 60)) == 60
