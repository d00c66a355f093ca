"""File of a null distribution: what is saved can be loaded, and malformed files give one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.nulls import null_of_rows

from assay.calibration.file import SCHEMA, load, save
from assay.calibration.null import NullDistribution
from assay.calibration.reference import CleanReferenceModel, Score
from assay.core.errors import UnusableInput


def test_save_load_null_unchanged(tmp_path: Path) -> None:
    one = CleanReferenceModel(
        {"full/a": Score(1.25, 3), "int8/a": Score(-3.0)}, "net one", 0.9, "photos", (0.5, 0.1, 0.2, 0.3, -1.25)
    )
    two = CleanReferenceModel({"full/a": Score(0.12341, 0)}, "net two", 0.61, "digits", ())
    save(NullDistribution("toy", "two models", (one, two), 7), tmp_path / "deep" / "null.json")
    back = load(tmp_path / "deep" / "null.json")
    assert back == NullDistribution("toy", "two models", (one, replace(two, scores={"full/a": Score(0.1234, 0)})), 7)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["null.json"]


def test_save_load_scores_only_unchanged(tmp_path: Path) -> None:
    null = null_of_rows([{"full/a": 0.5}] * 3)
    save(null, tmp_path / "null.json")
    assert load(tmp_path / "null.json") == null


GOOD: dict[str, Any] = {
    "schema": SCHEMA,
    "name": "n",
    "description": "d",
    "fewest_classes": 5,
    "models": [{"origin": "o", "accuracy": None, "family": "", "data": [], "scores": {"full/a": [1.0, 3]}}],
}


def scored(value: str) -> str:
    return json.dumps(GOOD).replace("1.0", value)


def with_model(**fields: object) -> str:
    return json.dumps({**GOOD, "models": [GOOD["models"][0] | fields]})


def without(key: str) -> str:
    return json.dumps({**GOOD, "models": [{k: v for k, v in GOOD["models"][0].items() if k != key}]})


MALFORMED = {
    "empty": "",
    "cut short": json.dumps(GOOD)[:-9],
    "no object": "[1, 2]",
    "a number": "3",
    "null": "null",
    "nothing in it": "{}",
    "another schema": json.dumps({**GOOD, "schema": "assay.null/9"}),
    "no models": json.dumps({k: v for k, v in GOOD.items() if k != "models"}),
    "models no list": json.dumps({**GOOD, "models": 3}),
    "models null": json.dumps({**GOOD, "models": None}),
    "models strings": json.dumps({**GOOD, "models": ["a"]}),
    **{f"model without {key}": without(key) for key in GOOD["models"][0]},
    "scores a list": with_model(scores=[1.0]),
    "score without class": with_model(scores={"full/a": [1.0]}),
    "score a number": with_model(scores={"full/a": 1.0}),
    "class a word": with_model(scores={"full/a": [1.0, "cat"]}),
    "class true": with_model(scores={"full/a": [1.0, True]}),
    "class a fraction": with_model(scores={"full/a": [1.0, 1.5]}),
    "accuracy a word": with_model(accuracy="good"),
    "data a number": with_model(data=3),
    "data of words": with_model(data=["dark"]),
    "data of three numbers": with_model(data=[0.5, 0.1, 0.2]),
    "fewest classes negative": json.dumps({**GOOD, "fewest_classes": -3}),
    "no fewest classes": json.dumps({k: v for k, v in GOOD.items() if k != "fewest_classes"}),
    "fewest classes a word": json.dumps({**GOOD, "fewest_classes": "few"}),
    "score a word": scored('"high"'),
    "score null": scored("null"),
    "score a list": scored("[1]"),
    "score true": scored("true"),
    "score NaN": scored("NaN"),
    "score infinite": scored("Infinity"),
    "score too large": scored("1e999"),
    "score far too large": scored("1" + 400 * "0"),
    "deep": 100_000 * "[",
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_load_malformed_file_one_line_error(content: str, tmp_path: Path) -> None:
    path = tmp_path / "null.json"
    path.write_text(content)
    with pytest.raises(UnusableInput, match="expected a null distribution") as error:
        load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_load_binary_file_one_line_error(tmp_path: Path) -> None:
    path = tmp_path / "null.json"
    path.write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(UnusableInput, match="expected a null distribution"):
        load(path)


def test_load_missing_file_one_line_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(UnusableInput, match=r"expected a (plain )?file, got (a folder|none)"):
            load(path)


def test_load_list_names_the_type_found(tmp_path: Path) -> None:
    path = tmp_path / "null.json"
    path.write_text("[1, 2]")
    with pytest.raises(UnusableInput, match=r"got another file: it holds a list\. Fix: make it"):
        load(path)
