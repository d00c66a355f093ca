"""Tests of texts and values made safe for JSON, CSV, terminals and pages."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from assay.core.errors import UnusableInput
from assay.io.csv import csv_text
from assay.io.display import escape_controls, escape_unprintable
from assay.io.jsonable import jsonable
from assay.io.strict_yaml import read_yaml


def test_jsonable_values_are_strict_json() -> None:
    value = {1: (np.float32(0.5), np.int64(3)), "nan": math.nan, "text\udc80": ["\udc80", None, True]}
    plain = jsonable(value)
    assert plain == {"1": [0.5, 3], "nan": None, "text\\udc80": ["\\udc80", None, True]}
    json.dumps(plain, allow_nan=False).encode()
    assert jsonable([math.inf, math.nan], not_finite="text") == ["inf", "nan"]


def test_csv_shows_control_characters_as_escapes() -> None:
    rows = [{"name": "a\x1b[31m\x00", "value": "\t=1\n2"}]
    assert csv_text(rows, ["name", "value"]) == b"name,value\na\\x1b[31m\\x00,'\\t=1\\n2\n"


def test_csv_holds_no_formula_and_no_broken_unicode() -> None:
    rows = [{"name": "=cmd()", "value": -1}, {"name": "\udc80"}]
    assert csv_text(rows, ["name", "value"]) == b"name,value\n'=cmd(),-1\n\\udc80,\n"


@pytest.mark.parametrize("text", ["\x1b[2J", "\u202e", "\u2028", "\ufeff", "\udc80"])
def test_unsafe_characters_become_escapes(text: str) -> None:
    assert escape_controls(text).isascii()
    assert escape_unprintable(text).isascii()


def test_printable_text_stays() -> None:
    for text in ("plain", "größer", "e\u0301", "日本"):
        assert escape_controls(text) == escape_unprintable(text) == text
    assert escape_unprintable("a\nb\tc", keep="\n") == "a\nb\\tc"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "line 2: the key 'a' comes twice"),
        ("a: &x 1\nb: *x", "no aliases"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_yaml_with_duplicates_or_aliases_is_refused(text: str, message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        read_yaml(text)
