"""Keys in PEM files: right keys, wrong keys, passphrases."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from assay.core.errors import UnusableInput
from assay.report.keys import key_id, permission_warning, read_private_key, read_public_key

KEY = Ed25519PrivateKey.generate()


def write_private(path: Path, key: object = KEY, encryption: KeySerializationEncryption | None = None) -> Path:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))  # type: ignore[attr-defined]
    return path


def write_public(path: Path, key: object = KEY) -> Path:
    public = key.public_key()  # type: ignore[attr-defined]
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def no_passphrase() -> None:
    raise AssertionError("no passphrase is needed")


def test_keys_are_read_from_pem_files(tmp_path: Path) -> None:
    private = read_private_key(write_private(tmp_path / "key.pem"), no_passphrase)
    public = read_public_key(write_public(tmp_path / "pub.pem"))
    public.verify(private.sign(b"text"), b"text")
    assert key_id(public) == key_id(private.public_key())


def test_encrypted_key_needs_its_passphrase(tmp_path: Path) -> None:
    path = write_private(tmp_path / "key.pem", encryption=BestAvailableEncryption(b"secret"))
    assert read_private_key(path, lambda: "secret").sign(b"text") == KEY.sign(b"text")
    with pytest.raises(UnusableInput, match="or a wrong passphrase"):
        read_private_key(path, lambda: "wrong")
    with pytest.raises(UnusableInput, match="expected a passphrase for this key, got none"):
        read_private_key(path, lambda: None)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    private, public = write_private(tmp_path / "key.pem"), write_public(tmp_path / "pub.pem")
    curve = ec.generate_private_key(ec.SECP256R1())
    other, other_public = write_private(tmp_path / "ec.pem", curve), write_public(tmp_path / "ec.pub", curve)
    text, large = tmp_path / "text", tmp_path / "large"
    text.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    large.write_bytes(b"-" * 100_000)
    for path, message in (
        (public, "expected a private key, got a public one"),
        (other, "got another kind of key"),
        (text, "expected an Ed25519 private key"),
        (large, "expected a key of at most"),
        (tmp_path, "got no file"),
        (tmp_path / "missing", "got no file"),
    ):
        with pytest.raises(UnusableInput, match=message):
            read_private_key(path, no_passphrase)
    for path, message in (
        (private, "expected a public key, got a private one"),
        (other_public, "got another kind of key"),
        (large, "expected a key of at most"),
        (tmp_path / "missing", "got no file"),
    ):
        with pytest.raises(UnusableInput, match=message):
            read_public_key(path)


def test_readable_key_gives_a_warning(tmp_path: Path) -> None:
    path = write_private(tmp_path / "key.pem")
    path.chmod(0o644)
    assert "chmod 600" in str(permission_warning(path))
    path.chmod(0o600)
    assert permission_warning(path) is None
