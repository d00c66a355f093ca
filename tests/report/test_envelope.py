"""DSSE envelopes: signatures, and hostile envelopes."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from assay.core.errors import UnusableInput
from assay.report.envelope import MAX_ENVELOPE_BYTES, PAYLOAD_TYPE, open_envelope, sign_payload, signed_bytes

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
PAYLOAD = b'{"a": 1}'


def envelope(**changes: Any) -> dict[str, Any]:
    return {**json.loads(sign_payload(PAYLOAD, KEY)), **changes}


def opened(document: object, key: Ed25519PrivateKey = KEY) -> bytes:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return open_envelope(content, key.public_key(), "file")


def test_signed_bytes_are_those_of_the_specification() -> None:
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"  # the example of the DSSE protocol
    assert signed_bytes("http://example.com/HelloWorld", b"hello world") == expected


def test_signed_payload_is_returned() -> None:
    line = sign_payload(PAYLOAD, KEY)
    assert line.count("\n") == 1
    assert opened(line.encode()) == PAYLOAD


def test_other_key_is_refused() -> None:
    with pytest.raises(UnusableInput, match="expected a signature of the given key, got none that is valid"):
        opened(envelope(), OTHER)


def test_changed_payload_is_refused() -> None:
    changed = base64.b64encode(b'{"a": 2}').decode()
    with pytest.raises(UnusableInput, match="got none that is valid"):
        opened(envelope(payload=changed))


def test_one_valid_signature_among_several_is_enough() -> None:
    foreign = json.loads(sign_payload(PAYLOAD, OTHER))["signatures"]
    document = envelope(signatures=[*foreign, {"sig": "AAAA"}, *envelope()["signatures"]])
    assert opened(document) == PAYLOAD
    with pytest.raises(UnusableInput, match="got none that is valid"):
        opened(envelope(signatures=[*foreign, *foreign]))


def test_url_safe_base64_is_accepted() -> None:
    payload = b"{}" + b" \xff\xfb?>" * 5
    document = json.loads(sign_payload(payload, KEY))
    document["payload"] = base64.urlsafe_b64encode(payload).decode()
    assert "_" in document["payload"]
    assert opened(document) == payload


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"", "is not valid JSON"),
        (b"[]", "expected a JSON object"),
        (b"\xff", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'{"payload": NaN}', "expected finite numbers, got NaN"),
        (b'{"payloadType": "a", "payloadType": "b"}', "is given twice"),
        (sign_payload(PAYLOAD, KEY).encode() * 2, "is not valid JSON"),
        (b" " * (MAX_ENVELOPE_BYTES + 1), "expected an envelope of at most"),
        (b'{"payloadType": ' + b"9" * 5000 + b"}", "is not valid JSON"),
        (envelope(payloadType="application/json"), "expected the payloadType"),
        (envelope(payloadType=[PAYLOAD_TYPE]), "expected the payloadType"),
        (envelope(payload=3), "expected a payload in base64"),
        (envelope(payload="e30=\n"), "expected a payload in base64"),
        (envelope(payload="é"), "expected a payload in base64"),
        (envelope(signatures=[]), "expected 1 to 16 signatures, got 0"),
        (envelope(signatures={"sig": ""}), "expected 1 to 16 signatures"),
        (envelope(signatures=[{"sig": "AAAA"}] * 17), "expected 1 to 16 signatures, got 17"),
        (envelope(signatures=["AAAA"]), "expected a signature in base64"),
        (envelope(signatures=[{"sig": None}]), "expected a signature in base64"),
        (envelope(signatures=[{"sig": ""}]), "got none that is valid"),
    ],
)
def test_hostile_envelope_is_refused_in_one_line(document: object, message: str) -> None:
    with pytest.raises(UnusableInput, match=message) as caught:
        opened(document)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
