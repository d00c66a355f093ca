"""Statements of audits, and their check."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from assay.core.errors import UnusableInput
from assay.core.model import FileDigest
from assay.core.result import Audit
from assay.report import write
from assay.report.attestation import check_model, facts, parse_statement, read_attestation
from assay.report.bundle import ENVELOPE, STATEMENT, report_files
from assay.report.statement import PREDICATE_TYPE, STATEMENT_TYPE

KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a folder with the files of a model."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("model.onnx", "model.onnx_data", "config.json"):
        (folder / name).write_text(name)
    return folder


def with_files(audit: Audit, folder: Path) -> Audit:
    names = ("model.onnx", "model.onnx_data", "config.json")
    files = tuple(FileDigest(name, hashlib.sha256((folder / name).read_bytes()).hexdigest()) for name in names)
    return replace(audit, model=replace(audit.model, path=str(folder), files=files))


def changed(content: bytes, **fields: Any) -> bytes:
    return json.dumps({**json.loads(content), **fields}).encode()


def test_statement_has_the_fields_of_the_audit(make_audit: Callable[..., Audit], model: Path) -> None:
    audit = with_files(make_audit("backdoored"), model)
    files = report_files(audit)
    document = json.loads(files[STATEMENT])
    assert (document["_type"], document["predicateType"]) == (STATEMENT_TYPE, PREDICATE_TYPE)
    assert [item["name"] for item in document["subject"]] == ["model.onnx", "model.onnx_data", "config.json"]
    assert document["subject"][0]["digest"] == {"sha256": hashlib.sha256(b"model.onnx").hexdigest()}
    predicate = document["predicate"]
    assert (predicate["verdict"], predicate["status"], predicate["errorRate"]) == ("backdoored", "fail", 0.05)
    assert [item["outcome"] for item in predicate["variants"]] == ["tested", "tested", "tested", "broken"]
    assert len(predicate["tests"]) == len(audit.findings)
    assert predicate["nullDistribution"]["models"] == 128
    assert "deployment" in predicate
    covered = {item["name"]: item["digest"]["sha256"] for item in predicate["reports"]}
    assert covered["audit.json"] == hashlib.sha256(files["audit.json"]).hexdigest()
    assert ENVELOPE not in files


def test_statement_of_a_quick_audit_lists_what_it_left_out(quick: Audit, model: Path) -> None:
    predicate = json.loads(report_files(with_files(quick, model))[STATEMENT])["predicate"]
    assert (predicate["verdict"], predicate["status"]) == ("inconclusive", "unknown")
    assert predicate["quick"]["leftOut"] == ["full/universal-shift", "full/graph", "int8/neural-cleanse"]


def test_statement_repeats_with_a_fixed_date(make_audit: Callable[..., Audit], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first, second = (report_files(make_audit("clean"), KEY) for _ in range(2))
    assert first == second
    assert json.loads(first[STATEMENT])["predicate"]["finishedOn"] == "2023-11-14T22:13:20Z"


def test_signed_report_is_valid_for_its_model(audit: Audit, model: Path, tmp_path: Path) -> None:
    write(with_files(audit, model), tmp_path / "report", KEY)
    found = read_attestation(tmp_path / "report", PUBLIC)
    assert (found.verdict, found.status) == (audit.verdict, audit.status)
    assert check_model(found, model) == []
    assert dict(facts(found))["Verdict"] == f"{audit.verdict} ({audit.status})"
    assert read_attestation(tmp_path / "report" / ENVELOPE, PUBLIC) == found


def test_model_file_may_have_another_name(make_audit: Callable[..., Audit], model: Path, tmp_path: Path) -> None:
    found = parse_statement(report_files(with_files(make_audit(), model))[STATEMENT], "statement")
    (model / "model.onnx").rename(model / "renamed.onnx")
    assert check_model(found, model / "renamed.onnx") == []
    (model / "renamed.onnx").write_text("other")
    with pytest.raises(UnusableInput, match="expected sha256"):
        check_model(found, model / "renamed.onnx")


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx_data", "config.json"])
@pytest.mark.parametrize("change", ["changed", "missing"])
def test_other_model_file_is_refused(make_audit: Callable[..., Audit], model: Path, name: str, change: str) -> None:
    found = parse_statement(report_files(with_files(make_audit(), model))[STATEMENT], "statement")
    if change == "missing":
        (model / name).unlink()
    else:
        (model / name).write_text("other")
    with pytest.raises(UnusableInput, match=r"expected sha256|missing|found none|got none"):
        check_model(found, model)


def test_new_files_next_to_the_model_are_noticed(make_audit: Callable[..., Audit], model: Path) -> None:
    found = parse_statement(report_files(with_files(make_audit(), model))[STATEMENT], "statement")
    (model / "other.safetensors").write_text("other")
    assert check_model(found, model) == ["other.safetensors"]
    (model / "preprocessor_config.json").write_text("{}")
    with pytest.raises(UnusableInput, match="expected no such file next to the model"):
        check_model(found, model)


def test_model_in_memory_has_its_digest_as_subject(make_audit: Callable[..., Audit], model: Path) -> None:
    found = parse_statement(report_files(make_audit())[STATEMENT], "statement")
    assert found.files == {}
    with pytest.raises(UnusableInput, match="got one on a model in memory"):
        check_model(found, model)


def test_changed_report_is_refused(make_audit: Callable[..., Audit], tmp_path: Path) -> None:
    write(make_audit("backdoored"), tmp_path / "r", KEY)
    (tmp_path / "r" / "audit.json").write_text("{}")
    with pytest.raises(UnusableInput, match=r"audit\.json: expected the report of the signed statement"):
        read_attestation(tmp_path / "r", PUBLIC)


def test_missing_or_unsigned_statement_is_refused(make_audit: Callable[..., Audit], tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match=r"got none"):
        read_attestation(tmp_path, PUBLIC)
    write(make_audit(), tmp_path, KEY)
    write(make_audit(), tmp_path)
    assert not (tmp_path / ENVELOPE).exists(), "an envelope of an earlier audit must not stay"
    with pytest.raises(UnusableInput, match=r"got an unsigned statement\.json"):
        read_attestation(tmp_path, PUBLIC)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "expected _type"),
        ({"predicateType": "https://slsa.dev/provenance/v1"}, "expected predicateType"),
        ({"predicate": []}, "expected a predicate with fields"),
        ({"predicate": {"verdict": "clean"}}, "expected a verdict with its status"),
        ({"predicate": {"verdict": ["clean"], "status": "pass"}}, "expected a verdict with its status"),
        ({"predicate": {"verdict": "inconclusive", "status": "pass", "reports": []}}, "expected a verdict with its"),
        ({"predicate": {"verdict": "clean", "status": "pass", "reports": 3}}, "expected a list of at most"),
        ({"subject": []}, "expected at least one file"),
        ({"subject": None}, "expected a list of at most"),
        ({"subject": [3]}, "expected different file names"),
        ({"subject": [{"name": "a", "digest": {"sha256": "short"}}]}, "expected a sha256 for each file"),
        ({"subject": [{"name": "a", "digest": {"sha256": "0" * 64}}] * 2}, "expected different file names"),
        ({"subject": [{"name": "", "digest": {"sha256": "0" * 64}}]}, "expected different file names"),
    ],
)
def test_other_statement_is_refused_in_one_line(
    make_audit: Callable[..., Audit], fields: dict[str, Any], message: str
) -> None:
    statement = report_files(make_audit())[STATEMENT]
    with pytest.raises(UnusableInput, match=message) as caught:
        parse_statement(changed(statement, **fields), "statement")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a\x00b"])
def test_subject_outside_of_the_model_is_refused(make_audit: Callable[..., Audit], model: Path, name: str) -> None:
    (model.parent / "secret").write_text("secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    subject = [{"name": "model.onnx", "digest": {"sha256": digest}}, {"name": name, "digest": {"sha256": digest}}]
    found = parse_statement(changed(report_files(make_audit())[STATEMENT], subject=subject), "statement")
    (model / "model.onnx").write_text("secret")
    with pytest.raises(UnusableInput, match="leads out of"):
        check_model(found, model / "model.onnx")


def test_report_outside_of_the_folder_is_refused(make_audit: Callable[..., Audit], tmp_path: Path) -> None:
    from assay.report.envelope import sign_payload

    (tmp_path / "r").mkdir()
    (tmp_path / "other").write_text("x")
    statement = json.loads(report_files(make_audit())[STATEMENT])
    statement["predicate"]["reports"] = [{"name": "../other", "digest": {"sha256": "0" * 64}}]
    (tmp_path / "r" / ENVELOPE).write_text(sign_payload(json.dumps(statement).encode(), KEY))
    with pytest.raises(UnusableInput, match="leads out of"):
        read_attestation(tmp_path / "r", PUBLIC)


def test_hostile_names_give_a_valid_statement(hostile: Audit, tmp_path: Path) -> None:
    write(hostile, tmp_path / "r", KEY)
    content = (tmp_path / "r" / STATEMENT).read_bytes()
    content.decode("ascii")
    assert b"</" not in content, "the text may be part of an HTML page"
    assert read_attestation(tmp_path / "r", PUBLIC).status == "fail"
    shutil.rmtree(tmp_path / "r" / "triggers", ignore_errors=True)
    assert read_attestation(tmp_path / "r", PUBLIC).status == "fail", "a report may be handed on without its images"
