"""``secret.json``: what only the attacker knows, beside the model that it belongs to."""

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
    """A secret, the file it was made for, and how it was made."""

    secret: Secret
    model_digest: str  # sha256 of the model file that was planted
    spec: Mapping[str, Any] = field(default_factory=dict)  # the attack's hyper-parameters
    seed: int = 0
    measured: Mapping[str, Any] = field(default_factory=dict)  # at the time of planting


def to_json(secret: Secret) -> dict[str, Any]:
    """A secret in plain JSON types, from which ``from_json`` makes the same.

    Raises UnusableInput where its trigger is none of ``assay.triggers``.
    """
    if not isinstance(secret.trigger, Trigger):
        raise UnusableInput(f"expected a trigger of assay.triggers to write down; got {type(secret.trigger).__name__}")
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
    """The secret that ``to_json`` described; raises what Python raises where it is malformed."""
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
    """The text of ``secret.json``."""
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
    """Reads what ``dumps`` wrote; raises UnusableInput for anything else."""
    try:
        document = read_json(path)
    except OSError as error:
        raise UnusableInput(f"cannot read {path}: {error.strerror or error}") from None
    if document.get("schema") != SCHEMA:
        raise UnusableInput(
            f"{path}: expected a secret as `assay plant` writes it ({SCHEMA}), came schema {document.get('schema')!r}"
        )
    try:
        return _parsed(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnusableInput(f"{path}: the secret is malformed: {type(error).__name__}: {error}") from None


def plaintext_key_warning(path: Path, secret: Secret) -> str | None:
    """A warning, in words, where others than its owner can read a file with a key in it; None where that is not so."""
    if not has_key(secret) or not path.stat().st_mode & 0o077:
        return None
    return f"{path} holds a private key, and others can read it: chmod 600 {path}"


def has_key(secret: Secret) -> bool:
    """Whether ``secret`` holds a key that others could use."""
    return isinstance(secret.trigger, Signed | Checksum)


def _parsed(document: Mapping[str, Any]) -> SecretFile:
    secret = from_json(document)
    return SecretFile(
        secret, str(document["model"]["digest"]), dict(document["spec"]), int(document["seed"]), document["measured"]
    )
