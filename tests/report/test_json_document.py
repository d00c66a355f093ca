"""JSON of an audit, validated against its published schema."""

import json
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from assay.core.finding import Evidence, Outcome
from assay.core.result import SweepPoint, VariantOutcome
from assay.report import dumps, to_json


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads(files("assay.report").joinpath("audit.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_document_is_valid(audit, validator):
    document = to_json(audit)
    validator.validate(document)
    assert document["schema"] == "assay.audit/2"
    assert document["verdict"] == audit.verdict
    assert document["status"] == {"clean": "pass", "backdoored": "fail", "inconclusive": "unknown"}[audit.verdict]
    assert len(document["findings"]) == len(audit.findings)


def test_document_with_hostile_content_is_valid_and_strict_json(hostile, validator):
    text = dumps(to_json(hostile))
    text.encode("ascii")
    assert "</" not in text, "the text may be part of an HTML page"

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    document = json.loads(text, parse_constant=refuse)
    validator.validate(document)
    json.dumps(document, ensure_ascii=False).encode("utf-8")  # no lone surrogates
    assert document["findings"][0]["evidence"]["per_class"] == {"0": None, "3": 1.0}


def test_document_contains_input_and_notes(make_audit, validator):
    document = to_json(make_audit())
    assert document["model"]["shape"] == [3, 32, 32]
    assert document["notes"] == ["the input size is a guess: 3 x 32 x 32"]
    document["model"]["shape"] = [64]  # the tokens of a text
    validator.validate(document)
    document["model"]["shape"] = [32, 32]
    assert not validator.is_valid(document)


def test_quick_audit_lists_what_it_left_out(quick, audit, validator):
    document = to_json(quick)
    validator.validate(document)
    assert document["quick"] == {
        "completed": ["full/neural-cleanse", "full/channel-lipschitz"],
        "left_out": ["full/universal-shift", "full/graph", "int8/neural-cleanse"],
    }
    assert to_json(audit)["quick"] is None


def test_dumped_text_parses_to_the_document(audit):
    assert json.loads(dumps(to_json(audit))) == to_json(audit)


def test_document_contains_small_images_only(make_audit):
    base = make_audit("backdoored")
    small = to_json(base)["findings"][0]["evidence"]
    assert np.shape(small["mask"]) == (32, 32)
    assert np.shape(small["trigger"]) == (3, 32, 32)
    assert small["trigger"][0][0][0] == round(small["trigger"][0][0][0], 4)
    large = Evidence(mask=np.zeros((65, 65)), trigger=np.full((3, 8, 8), np.nan))
    finding = replace(base.findings[0], evidence=large)
    evidence = to_json(replace(base, findings=(finding,)))["findings"][0]["evidence"]
    assert set(evidence) == {"numbers", "per_class"}


def test_document_contains_known_predictions(make_audit, validator):
    document = to_json(make_audit("backdoored"))
    evidence = [finding["evidence"] for finding in document["findings"][:2]]
    assert evidence[0]["predicted_before"] == [0, 1, 2, 4, 5, 6]
    assert evidence[0]["predicted_after"] == [3, 3, 3, 3, 3, 7]
    assert "predicted_before" not in evidence[1]
    evidence[0]["predicted_after"] = ["cat"]
    assert not validator.is_valid(document)


def test_schema_rejects_an_unknown_field(make_audit, validator):
    assert not validator.is_valid({**to_json(make_audit()), "surprise": 1})


def test_outcomes_have_reasons(make_audit, validator):
    document = to_json(make_audit())
    outcomes = {finding["detector"]: (finding["outcome"], finding["reason"]) for finding in document["findings"]}
    assert outcomes["neural-cleanse"] == ("scored", "")
    assert outcomes["universal-shift"] == ("abstained", "needs gradients, which a model in onnx format does not give")
    assert [variant["outcome"] for variant in document["variants"]] == ["tested", "tested", "tested", "broken"]
    assert document["variants"][3]["reason"] == "pruning broke the model: accuracy is 41 %"
    document["findings"][0]["outcome"] = "ok"
    assert not validator.is_valid(document)


def test_schema_lists_all_outcomes(validator):
    variant = validator.schema["properties"]["variants"]["items"]["properties"]["outcome"]["enum"]
    assert set(variant) == {outcome.value for outcome in VariantOutcome}
    finding = validator.schema["$defs"]["finding"]["properties"]["outcome"]["enum"]
    assert set(finding) == {outcome.value for outcome in Outcome}


def test_trigger_sweep_has_plain_names(make_audit, validator):
    point = SweepPoint("weights, bits", "4", 0.97, 0.99, 3, "int8/neural-cleanse")
    document = to_json(replace(make_audit("backdoored"), trigger_sweep=(point,)))
    validator.validate(document)
    assert document["trigger_sweep"] == [
        {
            "compression": "weights, bits",
            "level": "4",
            "agreement": 0.97,
            "trigger_success": 0.99,
            "target": 3,
            "test": "int8/neural-cleanse",
        }
    ]


def test_every_field_has_a_description(validator):
    def undescribed(schema, path):
        for name, field in schema.get("properties", {}).items():
            if "description" not in field and "const" not in field:
                yield f"{path}.{name}"
            yield from undescribed(field, f"{path}.{name}")
        if "items" in schema:
            yield from undescribed(schema["items"], f"{path}[]")
        for part in schema.get("anyOf", ()):
            yield from undescribed(part, path)

    finding = validator.schema["$defs"]["finding"]
    assert [*undescribed(validator.schema, ""), *undescribed(finding, "finding")] == []
