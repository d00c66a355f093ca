"""``secret.json``: the attacker's knowledge about a planted model, stored next to the model file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assay.core.build import Secret
from assay.core.errors import UnusableInput
from assay.io.files import read_json
from assay.triggers import Checksum, Signed, Trigger, from_spec, to_spec

SCHEMA = "assay.secret/1"
FILE_NAME = "secret.json"


@dataclass(frozen=True)
class SecretFile:
    """Secret of a planted model, with the model's digest and the attack's settings."""

    secret: Secret
    model_digest: str  # sha256 of the planted model file
    spec: Mapping[str, Any] = field(default_factory=dict)  # the attack's settings
    seed: int = 0
    measured: Mapping[str, Any] = field(default_factory=dict)  # metrics at the time of planting


def to_json(secret: Secret) -> dict[str, Any]:
    """Convert a secret to plain JSON types for ``from_json``.

    Raises UnusableInput if its trigger is not one of ``assay.triggers``.
    """
    if not isinstance(secret.trigger, Trigger):
        raise UnusableInput(f"expected a trigger of assay.triggers, got {type(secret.trigger).__name__}")
    return {
        "attack": secret.attack,
        "trigger": to_spec(secret.trigger),
        "target": secret.target,
        "concept": secret.concept,
        "sources": None if secret.sources is None else list(secret.sources),
        "planted_at": secret.planted_at,
        "wakes_in": secret.active_in,
        "details": dict(secret.details),
    }


def from_json(document: Mapping[str, Any]) -> Secret:
    """Restore a secret from ``to_json``. Raises Python's own errors for malformed documents."""
    target, sources, concept = document["target"], document["sources"], document.get("concept")
    return Secret(
        attack=str(document["attack"]),
        trigger=from_spec(document["trigger"]),
        target=None if target is None else int(target),
        sources=None if sources is None else tuple(int(source) for source in sources),
        planted_at=str(document["planted_at"]),
        active_in=None if document.get("wakes_in") is None else str(document["wakes_in"]),
        details=dict(document["details"]),
        concept=None if concept is None else str(concept),
    )


def dumps(file: SecretFile) -> str:
    """Return the text of ``secret.json``."""
    document = {
        "schema": SCHEMA,
        **to_json(file.secret),
        "spec": dict(file.spec),
        "seed": file.seed,
        "model": {"digest": file.model_digest},
        "measured": dict(file.measured),
    }
    return json.dumps(document, indent=2) + "\n"


def read(path: Path) -> SecretFile:
    """Read a file written by ``dumps``. Raises UnusableInput for any other file."""
    try:
        document = read_json(path)
    except OSError as error:
        raise UnusableInput(f"expected a readable file {path}, got the error: {error.strerror or error}") from None
    if document.get("schema") != SCHEMA:
        raise UnusableInput(
            f"{path}: expected a secret written by `assay plant` ({SCHEMA}), got schema {document.get('schema')!r}"
        )
    try:
        return SecretFile(
            from_json(document),
            str(document["model"]["digest"]),
            dict(document["spec"]),
            int(document["seed"]),
            document["measured"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnusableInput(
            f"{path}: expected a valid secret, got a malformed one: {type(error).__name__}: {error}"
        ) from None


def plaintext_key_warning(path: Path, secret: Secret) -> str | None:
    """Return a warning if other users can read a file with a private key.

    Args:
        path: Secret file.
        secret: Its content.

    Returns:
        Warning, or None if there is no key or the file mode protects it.
    """
    if not has_key(secret) or not path.stat().st_mode & 0o077:
        return None
    return f"{path} contains a private key and is readable by other users. Fix: chmod 600 {path}"


def has_key(secret: Secret) -> bool:
    """Check whether ``secret`` contains a private key."""
    return isinstance(secret.trigger, Signed | Checksum)
