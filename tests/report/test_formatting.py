"""Numbers and names as text for people."""

import math

import pytest

from assay.report import formatting


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0, "1 in 1,000,000"), (1 / 129, "1 in 129"), (0.05, "1 in 20"), (0.43, "43 in 100"), (1, "99 in 100")],
)
def test_probability_is_formatted_as_a_count(p, text):
    assert formatting.format_odds(p) == text


def test_numbers_have_three_digits():
    assert [formatting.format_number(value) for value in (None, math.nan, math.inf, -1.2345, 1234.5)] == [
        "–",
        "not a number",
        "∞",
        "−1.23",
        "1234",
    ]
    assert formatting.format_p_value(0.0) == "< 0.0001"
    assert formatting.format_duration(0.01) == "< 0.1 s"
    assert formatting.format_duration(125) == "2 min 05 s"


def test_hidden_characters_are_escaped():
    assert formatting.display_text("a\nb\u202ec\udcffד") == "a\\nb\\u202ec\\udcffד"
    assert len(formatting.display_text("x" * 5000, 60)) == 60
