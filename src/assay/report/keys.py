"""Ed25519 keys in PEM files, for signed statements."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from assay.core.errors import UnusableInput

MAX_KEY_BYTES = 2**16
TO_MAKE = "make one with `openssl genpkey -algorithm ed25519 -out KEY.pem`"
TO_PUBLISH = "make the public one with `openssl pkey -in KEY.pem -pubout -out PUB.pem`"


def read_private_key(path: Path, passphrase: Callable[[], str | None]) -> Ed25519PrivateKey:
    """Return the private key in a PEM file.

    Args:
        path: The file.
        passphrase: Returns the passphrase. Called for an encrypted key only; None: there is none.

    Raises:
        UnusableInput: The file is no Ed25519 private key, or the passphrase is missing or wrong.
    """
    data = _read_pem(path)
    if b"PUBLIC KEY-----" in data:
        raise UnusableInput(f"{path}: expected a private key, got a public one. Fix: {TO_MAKE}.")
    secret = passphrase() if b"ENCRYPTED" in data else None
    if secret is None and b"ENCRYPTED" in data:
        raise UnusableInput(
            f"{path}: expected a passphrase for this key, got none. Fix: set ASSAY_KEY_PASSPHRASE or use a terminal."
        )
    try:
        key = load_pem_private_key(data, None if secret is None else secret.encode("utf-8", "surrogateescape"))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        problem = "another file, or a wrong passphrase" if secret is not None else "another file"
        raise UnusableInput(f"{path}: expected an Ed25519 private key (PEM), got {problem}. Fix: {TO_MAKE}.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UnusableInput(f"{path}: expected an Ed25519 private key, got another kind of key. Fix: {TO_MAKE}.")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Return the public key in a PEM file.

    Raises:
        UnusableInput: The file is no Ed25519 public key.
    """
    data = _read_pem(path)
    if b"PRIVATE KEY-----" in data:
        raise UnusableInput(f"{path}: expected a public key, got a private one. Fix: {TO_PUBLISH}.")
    try:
        key = load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UnusableInput(
            f"{path}: expected an Ed25519 public key (PEM), got another file. Fix: {TO_PUBLISH}."
        ) from None
    if not isinstance(key, Ed25519PublicKey):
        raise UnusableInput(f"{path}: expected an Ed25519 public key, got another kind of key. Fix: {TO_PUBLISH}.")
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """Return the sha256 of a public key in DER."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def permission_warning(path: Path) -> str | None:
    """Return a warning if other users can read a private key; None if they cannot."""
    if not path.stat().st_mode & 0o077:
        return None
    return f"{path} is a private key, and other users can read it. Fix: chmod 600 {path}"


def _read_pem(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise UnusableInput(f"{path}: expected a key in a PEM file, got no file. Fix: {TO_MAKE}.")
        with path.open("rb") as file:
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise UnusableInput(f"cannot read {path}: {error.strerror or error}") from None
    if len(data) > MAX_KEY_BYTES:
        raise UnusableInput(f"{path}: expected a key of at most {MAX_KEY_BYTES} bytes, got a larger file")
    return data
