"""SARIF 2.1.0: required properties and internal references."""

import json
from dataclasses import replace
from urllib.parse import unquote

import pytest

from assay.core.model import FileDigest
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
    assert unquote(location["uri"]).endswith(path)
    assert ":" not in location["uri"]


def test_location_never_leads_out_of_the_repository(make_audit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = make_audit("backdoored")
    for path, uri in (
        (tmp_path / "m.onnx", "m.onnx"),
        ("/elsewhere/m.onnx", "models-outside-of-the-repository/m.onnx"),
        ("../m.onnx", "models-outside-of-the-repository/m.onnx"),
    ):
        run = checked_run(to_sarif(replace(base, model=replace(base.model, path=str(path)))))
        location = run["results"][0]["locations"][0]
        assert location["physicalLocation"]["artifactLocation"]["uri"] == uri
        assert location["logicalLocations"][0]["fullyQualifiedName"] == str(path)
        assert run["artifacts"][0]["location"]["uri"] == uri


def category(document: dict) -> str:
    """Return the category of GitHub: the text before the last slash of the id."""
    return document["runs"][0]["automationDetails"]["id"].rpartition("/")[0]


def test_each_model_has_its_own_category(make_audit):
    base = make_audit("backdoored")

    def of(**changes):
        return category(to_sarif(replace(base, model=replace(base.model, **changes))))

    assert of(path="a/m.onnx") != of(path="b/m.onnx")
    assert of(path="a/m.onnx") == of(path="a/m.onnx", digest="0" * 64), "a new version replaces the old alerts"
    assert of(path="/else/m.onnx") != of(path="/else/m.onnx", digest="0" * 64)
    assert of(path="a/m.onnx").startswith("assay/audit/")


def test_status_stands_in_properties_and_invocation(audit):
    run = checked_run(to_sarif(audit))
    assert run["properties"]["status"] == audit.status
    invocation = run["invocations"][0]
    assert invocation["exitCode"] == {"pass": 0, "fail": 1, "unknown": 3}[audit.status]
    assert audit.status in invocation["exitCodeDescription"]
    assert {result["kind"] for result in run["results"]} <= {"fail"}
    assert bool(run["results"]) == (audit.status != "pass"), "an inconclusive audit has an alert, too"


def test_dismissed_alert_does_not_cover_another_model(make_audit):
    base = make_audit("backdoored")
    other = replace(base, model=replace(base.model, digest="0" * 64))
    prints = [to_sarif(item)["runs"][0]["results"][0]["partialFingerprints"] for item in (base, base, other)]
    assert prints[0] == prints[1]
    assert prints[0]["primaryLocationLineHash"] != prints[2]["primaryLocationLineHash"]


def test_each_file_of_a_model_is_an_artifact_with_its_digest(make_audit):
    base = make_audit("backdoored")
    files = (FileDigest("model.onnx", "1" * 64), FileDigest("model.onnx_data", "2" * 64))
    run = checked_run(to_sarif(replace(base, model=replace(base.model, files=files))))
    assert [item["hashes"]["sha-256"] for item in run["artifacts"][1:]] == ["1" * 64, "2" * 64]
    run = checked_run(to_sarif(replace(base, model=replace(base.model, files=files[:1]))))
    assert [item["hashes"]["sha-256"] for item in run["artifacts"]] == ["1" * 64]


def test_quick_audit_lists_what_it_left_out(quick, audit):
    run = checked_run(to_sarif(quick))
    assert run["properties"]["quick"]["leftOut"] == ["full/universal-shift", "full/graph", "int8/neural-cleanse"]
    messages = [note["message"]["text"] for note in run["invocations"][0]["toolExecutionNotifications"]]
    assert sum("left out by a quick audit" in text for text in messages) == 2
    assert any(text.startswith("int8/neural-cleanse not run") for text in messages)
    assert [result["ruleId"] for result in run["results"]] == ["audit-inconclusive"]
    assert to_sarif(audit)["runs"][0]["properties"]["quick"] is None
