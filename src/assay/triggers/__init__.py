"""Triggers: what turns a backdoor on. Each is a frozen dataclass, callable on a batch, and survives JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from assay.core.errors import UnusableInput
from assay.triggers.additive import Additive
from assay.triggers.blend import Blend
from assay.triggers.patch import Patch
from assay.triggers.signed import Checksum, Signed
from assay.triggers.tokens import Tokens

__all__ = ["TRIGGERS", "Additive", "Blend", "Checksum", "Patch", "Signed", "Tokens", "Trigger", "from_spec", "to_spec"]

Trigger = Patch | Blend | Additive | Tokens | Signed | Checksum

TRIGGERS: dict[str, type[Trigger]] = {
    "patch": Patch,
    "blend": Blend,
    "additive": Additive,
    "tokens": Tokens,
    "signed": Signed,
    "checksum": Checksum,
}


def to_spec(trigger: Trigger, *, brief: bool = False) -> dict[str, Any]:
    """A JSON-able description from which ``from_spec`` makes the same trigger.

    ``brief``: for people and model files, with the sha256 of a pattern in place of the pattern, and without keys.
    """
    name = next(name for name, kind in TRIGGERS.items() if isinstance(trigger, kind))
    if brief and isinstance(trigger, Signed | Checksum):
        return {"kind": name, **trigger.public()}
    fields = asdict(trigger)
    if brief and isinstance(trigger, Additive):
        fields["steps"] = f"sha256:{hashlib.sha256(trigger.steps.encode()).hexdigest()[:16]}"
    return {"kind": name, **fields}


def from_spec(spec: Mapping[str, Any]) -> Trigger:
    """The trigger that ``to_spec`` described."""
    values = dict(spec)
    kind = values.pop("kind", None)
    if kind not in TRIGGERS:
        raise UnusableInput(f"expected a trigger of kind {', '.join(TRIGGERS)}; got {kind!r}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    try:
        return TRIGGERS[kind](**values)
    except TypeError as error:
        raise UnusableInput(f"the {kind} trigger does not take these settings: {error}") from None
