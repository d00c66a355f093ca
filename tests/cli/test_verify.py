"""``assay audit --sign-report`` and ``assay verify``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from support.commands import Run, assert_one_line

from assay import formats
from assay.core.result import Audit, ModelInfo
from assay.formats.untrained import untrained_model
from assay.report import write
from assay.report.keys import read_private_key

pytestmark = pytest.mark.slow
AUDIT = ("audit", "model", "--no-labels", "--data", "signs:4", "--variants", "full", "--detectors", "channel-lipschitz")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Return a folder with a key pair, an encrypted key, and the public key of another pair."""
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    for name, encryption in (("key.pem", NoEncryption()), ("locked.pem", BestAvailableEncryption(b"secret"))):
        (tmp_path / name).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        (tmp_path / name).chmod(0o600)
    for name, pair in (("pub.pem", key), ("other.pem", other)):
        public = pair.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / name).write_bytes(public)
    return tmp_path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the folder of an untrained model."""
    return formats.save(untrained_model("resnet8-cifar", 4), tmp_path / "model").parent


def test_signed_report_verifies_with_its_model_only(run: Run, keys: Path, model: Path) -> None:
    result = run(*AUDIT, "--out", "r", "--sign-report", "key.pem")
    assert result.code == 3, result.err
    assert "Status: unknown" in result.err
    predicate = json.loads(Path("r/statement.json").read_text())["predicate"]
    assert len(predicate["data"]["sha256"]) == 64
    valid = run("verify", "r", "--key", "pub.pem", "--model", "model", "--json", "-")
    assert valid.code == 3, valid.err
    assert "Valid: the signature and the reports. All files of model have the attested digests." in valid.err
    document = json.loads(valid.out)
    assert (document["valid"], document["status"], document["model_checked"]) == (True, "unknown", True)
    assert run("verify", "r/audit.intoto.jsonl", "--key", "pub.pem").code == 3
    other = run("verify", "r", "--key", "other.pem")
    assert other.code == 2
    assert "got none that is valid" in assert_one_line(other.err)
    with (model / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    changed = run("verify", "r", "--key", "pub.pem", "--model", "model")
    assert changed.code == 2
    assert "expected sha256" in assert_one_line(changed.err)
    shutil.copy("r/audit.json", "r/audit.sarif")
    assert "expected the report of the signed statement" in assert_one_line(run("verify", "r", "--key", "pub.pem").err)


@pytest.mark.parametrize(("verdict", "code", "status"), [("clean", 0, "pass"), ("backdoored", 1, "fail")])
def test_exit_code_follows_the_status(run: Run, keys: Path, verdict: str, code: int, status: str) -> None:
    audit = Audit(
        verdict=verdict,  # type: ignore[arg-type]
        reason="a reason",
        p_value=0.5,
        false_alarm_rate=0.02,
        statistic=1.0,
        target=None,
        strongest=None,
        model=ModelInfo("model", "0" * 64, "safetensors", "image", 4, None),
        findings=(),
        variants=(),
        limits=(),
        data_name="data",
        data_samples=8,
        null=None,
        seconds=1.0,
        seed=0,
        version="0.1.0",
    )
    write(audit, Path("r"), read_private_key(keys / "key.pem", lambda: None))
    valid = run("verify", "r", "--key", "pub.pem")
    assert (valid.code, f"Status: {status}" in valid.err) == (code, True), valid.err
    assert "The model's files were not compared" in valid.err


def test_passphrase_comes_from_the_environment(
    run: Run, keys: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASSAY_KEY_PASSPHRASE", raising=False)
    refused = run(*AUDIT, "--sign-report", "locked.pem")
    assert refused.code == 2
    assert "expected a passphrase" in assert_one_line(refused.err)
    monkeypatch.setenv("ASSAY_KEY_PASSPHRASE", "secret")
    (keys / "locked.pem").chmod(0o644)
    result = run(*AUDIT, "--out", "r", "--sign-report", "locked.pem")
    assert (result.code, "other users can read it" in result.err) == (3, True), result.err
    assert run("verify", "r", "--key", "pub.pem").code == 3


def test_unusable_key_is_refused_before_the_audit(run: Run, keys: Path) -> None:
    result = run("audit", "no-model", "--sign-report", "pub.pem")
    assert result.code == 2
    assert "expected a private key, got a public one" in assert_one_line(result.err)


def test_report_without_signature_is_refused(run: Run, keys: Path, model: Path) -> None:
    assert run(*AUDIT, "--out", "r").code == 3
    result = run("verify", "r", "--key", "pub.pem")
    assert result.code == 2
    assert "got an unsigned statement.json" in assert_one_line(result.err)
