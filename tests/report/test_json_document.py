"""The JSON of an audit keeps to its published schema."""

import json
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from assay.core.finding import Evidence
from assay.report import dumps, to_json


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads(files("assay.report").joinpath("audit.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_keeps_to_the_schema(audit, validator):
    document = to_json(audit)
    validator.validate(document)
    assert document["schema"] == "assay.audit/1"
    assert document["verdict"] == audit.verdict
    assert len(document["findings"]) == len(audit.findings)


def test_hostile_content_keeps_to_the_schema_and_is_strict_json(hostile, validator):
    text = dumps(to_json(hostile))
    text.encode("ascii")

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    document = json.loads(text, parse_constant=refuse)
    validator.validate(document)
    json.dumps(document, ensure_ascii=False).encode("utf-8")  # no lone surrogates
    assert document["findings"][0]["evidence"]["per_class"] == {"0": None, "3": 1.0}


def test_input_and_notes_stand_in_it(make_audit, validator):
    document = to_json(make_audit())
    assert document["model"]["shape"] == [3, 32, 32]
    assert document["notes"] == ["the input size is a guess: 3 x 32 x 32"]
    document["model"]["shape"] = [32, 32]
    assert not validator.is_valid(document)


def test_text_is_the_document(audit):
    assert json.loads(dumps(to_json(audit))) == to_json(audit)


def test_only_small_pictures_stand_in_it(make_audit):
    base = make_audit("backdoored")
    small = to_json(base)["findings"][0]["evidence"]
    assert np.shape(small["mask"]) == (32, 32)
    assert np.shape(small["trigger"]) == (3, 32, 32)
    assert small["trigger"][0][0][0] == round(small["trigger"][0][0][0], 4)
    large = Evidence(mask=np.zeros((65, 65)), trigger=np.full((3, 8, 8), np.nan))
    finding = replace(base.findings[0], evidence=large)
    evidence = to_json(replace(base, findings=(finding,)))["findings"][0]["evidence"]
    assert set(evidence) == {"numbers", "per_class"}


def test_what_the_model_said_stands_in_it_where_it_is_known(make_audit, validator):
    document = to_json(make_audit("backdoored"))
    evidence = [finding["evidence"] for finding in document["findings"][:2]]
    assert evidence[0]["said_before"] == [0, 1, 2, 4, 5, 6]
    assert evidence[0]["said_after"] == [3, 3, 3, 3, 3, 7]
    assert "said_before" not in evidence[1]
    evidence[0]["said_after"] = ["cat"]
    assert not validator.is_valid(document)


def test_schema_refuses_what_it_does_not_know(make_audit, validator):
    assert not validator.is_valid({**to_json(make_audit()), "surprise": 1})
