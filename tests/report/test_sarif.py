"""SARIF 2.1.0: required properties and internal references."""

import json
from dataclasses import replace
from urllib.parse import unquote

import pytest

from assay.report import to_sarif

LEVELS = {"none", "note", "warning", "error"}


def checked_run(document: dict) -> dict:
    """Assert the required properties and internal references of SARIF 2.1.0. Return the run."""
    assert document["version"] == "2.1.0"
    assert len(document["runs"]) == 1
    run = document["runs"][0]
    driver = run["tool"]["driver"]
    assert driver["name"] == "assay"
    assert driver["version"]
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(ids) == len(set(ids))
    taxa = [taxon["id"] for taxon in run["taxonomies"][0]["taxa"]]
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"]
        assert any(tag.startswith("AML.T") for tag in rule["properties"]["tags"])
        target = rule["relationships"][0]["target"]
        assert taxa[target["index"]] == target["id"]
    for result in run["results"]:
        assert result["message"]["text"]
        assert result["level"] in LEVELS
        assert ids[result["ruleIndex"]] == result["ruleId"]
        assert all(isinstance(value, str) for value in result["partialFingerprints"].values())
        for reference in result["taxa"]:
            assert taxa[reference["index"]] == reference["id"]
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert uri.isascii()
        assert not set(uri) & set(' <>"\\')
    for note in run["invocations"][0]["toolExecutionNotifications"]:
        assert note["message"]["text"]
        assert note["level"] in LEVELS
    assert isinstance(run["invocations"][0]["executionSuccessful"], bool)
    return run


def test_run_has_required_properties_and_verdict(audit):
    run = checked_run(to_sarif(audit))
    assert run["properties"]["verdict"] == audit.verdict


@pytest.mark.parametrize(
    ("verdict", "levels"), [("clean", []), ("inconclusive", ["warning"]), ("backdoored", ["error", "error"])]
)
def test_results_follow_the_verdict(make_audit, verdict, levels):
    run = checked_run(to_sarif(make_audit(verdict)))
    assert [result["level"] for result in run["results"]] == levels


def test_messages_name_the_class_and_the_reasons(make_audit):
    run = checked_run(to_sarif(make_audit("backdoored")))
    assert "'cat'" in run["results"][0]["message"]["text"]
    texts = [note["message"]["text"] for note in run["invocations"][0]["toolExecutionNotifications"]]
    assert any("gradients" in text for text in texts)
    assert any("accuracy is 41 %" in text for text in texts)


def test_hostile_text_gives_valid_sarif(hostile):
    run = checked_run(json.loads(json.dumps(to_sarif(hostile), allow_nan=False)))
    text = json.dumps(run, ensure_ascii=False)
    assert text.encode("utf-8").decode("utf-8") == text, "no lone surrogates"
    message = run["results"][0]["message"]["text"]
    assert "<script>" in message, "SARIF viewers escape the text"
    assert not {"\x00", "\x1b", "\u202e"} & set(message)
    assert len(message) < 3000


@pytest.mark.parametrize("path", ["my models/réseau #1.onnx", "a:b", "org/model"])
def test_location_is_a_relative_uri(make_audit, path):
    base = make_audit("backdoored")
    run = checked_run(to_sarif(replace(base, model=replace(base.model, path=path))))
    location = run["artifacts"][0]["location"]
    assert unquote(location["uri"]) == path
    assert ":" not in location["uri"]


def test_location_inside_the_working_folder(make_audit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = make_audit("backdoored")
    inside = replace(base, model=replace(base.model, path=str(tmp_path / "m.onnx")))
    assert to_sarif(inside)["runs"][0]["artifacts"][0]["location"]["uri"] == "m.onnx"
    outside = replace(base, model=replace(base.model, path="/elsewhere/m.onnx"))
    assert to_sarif(outside)["runs"][0]["artifacts"][0]["location"]["uri"] == "file:///elsewhere/m.onnx"
