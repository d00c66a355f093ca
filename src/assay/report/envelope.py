"""DSSE envelope: a payload with Ed25519 signatures.

Dead Simple Signing Envelope, version 1.0.0: https://github.com/secure-systems-lab/dsse. The signature covers the type
and the bytes of the payload, so a reader checks it before any parsing of the payload.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from assay.core.errors import UnusableInput
from assay.io.files import parse_json
from assay.report.keys import key_id

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_ENVELOPE_BYTES = 4 * 2**20
MAX_SIGNATURES = 16


def sign_payload(payload: bytes, key: Ed25519PrivateKey) -> str:
    """Return the envelope of a payload as one line of JSON.

    Args:
        payload: Bytes of an in-toto statement.
        key: Private key of the signer.
    """
    signature = {"keyid": key_id(key.public_key()), "sig": _to_base64(key.sign(signed_bytes(PAYLOAD_TYPE, payload)))}
    document = {"payload": _to_base64(payload), "payloadType": PAYLOAD_TYPE, "signatures": [signature]}
    return json.dumps(document) + "\n"


def open_envelope(content: bytes, key: Ed25519PublicKey, where: str) -> bytes:
    """Return the payload of an envelope with a valid signature.

    One valid signature is enough. Signatures of other keys do not count.

    Args:
        content: One envelope as JSON.
        key: Public key of the expected signer.
        where: Name of the file for error messages.

    Raises:
        UnusableInput: The envelope is malformed, or has no valid signature of this key.
    """
    if len(content) > MAX_ENVELOPE_BYTES:
        raise UnusableInput(f"{where}: expected an envelope of at most {MAX_ENVELOPE_BYTES} bytes, got a larger file")
    document = json_object(content, where)
    payload_type, signatures = document.get("payloadType"), document.get("signatures")
    if payload_type != PAYLOAD_TYPE:
        raise UnusableInput(f"{where}: expected the payloadType {PAYLOAD_TYPE!r}, got {shorten(payload_type)}")
    if not isinstance(signatures, list) or not 1 <= len(signatures) <= MAX_SIGNATURES:
        count = len(signatures) if isinstance(signatures, list) else shorten(signatures)
        raise UnusableInput(f"{where}: expected 1 to {MAX_SIGNATURES} signatures, got {count}")
    payload = _from_base64(document.get("payload"), "payload", where)
    values = [
        _from_base64(entry.get("sig") if isinstance(entry, dict) else None, "signature", where) for entry in signatures
    ]
    if not any(_is_signature(value, payload, key) for value in values):
        raise UnusableInput(
            f"{where}: expected a signature of the given key, got none that is valid. The report was changed, or "
            "another key signed it."
        )
    return payload


def signed_bytes(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes under a signature: DSSE's "pre-authentication encoding".

    Args:
        payload_type: Type of the payload.
        payload: The payload.
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def json_object(content: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in some bytes; see ``parse_json``.

    Args:
        content: UTF-8 text.
        where: Name of the source for error messages.

    Raises:
        UnusableInput: The bytes are anything else.
    """
    try:
        document = parse_json(content.decode("utf-8"), where)
    except UnicodeDecodeError:
        raise UnusableInput(f"{where}: is not valid JSON (it is no text in UTF-8)") from None
    if not isinstance(document, dict):
        raise UnusableInput(f"{where}: expected a JSON object, got {shorten(document)}")
    return document


def _is_signature(value: bytes, payload: bytes, key: Ed25519PublicKey) -> bool:
    try:
        key.verify(value, signed_bytes(PAYLOAD_TYPE, payload))
    except InvalidSignature:
        return False
    return True


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _from_base64(value: object, what: str, where: str) -> bytes:
    if not isinstance(value, str):
        raise UnusableInput(f"{where}: expected a {what} in base64, got {shorten(value)}")
    try:
        # DSSE allows the URL-safe alphabet as well.
        return base64.b64decode(value.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        raise UnusableInput(f"{where}: expected a {what} in base64, got other text") from None


def shorten(value: object) -> str:
    """Return at most 60 characters of a value of an envelope, for messages."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
