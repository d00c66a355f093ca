"""Triggers. Each is a frozen dataclass, callable on a batch and convertible to and from JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, get_type_hints

from assay.core.errors import UnusableInput
from assay.core.typed import matches
from assay.triggers.additive import Additive
from assay.triggers.blend import Blend
from assay.triggers.patch import Patch
from assay.triggers.signed import Checksum, Signed
from assay.triggers.tokens import Tokens

__all__ = ["TRIGGERS", "Additive", "Blend", "Checksum", "Patch", "Signed", "Tokens", "Trigger", "from_spec", "to_spec"]

Trigger = Patch | Blend | Additive | Tokens | Signed | Checksum

MAX_NUMBER = 2**63 - 1  # of a setting; torch takes no larger seed

TRIGGERS: dict[str, type[Trigger]] = {
    "patch": Patch,
    "blend": Blend,
    "additive": Additive,
    "tokens": Tokens,
    "signed": Signed,
    "checksum": Checksum,
}


def to_spec(trigger: Trigger, *, brief: bool = False) -> dict[str, Any]:
    """Describe a trigger in plain JSON types.

    Args:
        trigger: Trigger to describe.
        brief: For reports and model files: the sha256 of a pattern replaces the pattern, and keys are withheld.

    Returns:
        Description; ``from_spec`` restores the trigger unless ``brief``.
    """
    name = next(name for name, kind in TRIGGERS.items() if isinstance(trigger, kind))
    if brief and isinstance(trigger, Signed | Checksum):
        return {"kind": name, **trigger.public()}
    fields = asdict(trigger)
    if brief and isinstance(trigger, Additive):
        fields["steps"] = f"sha256:{hashlib.sha256(trigger.steps.encode()).hexdigest()[:16]}"
    return {"kind": name, **fields}


def from_spec(spec: Mapping[str, Any]) -> Trigger:
    """Restore a trigger from a description by ``to_spec``. Raises UnusableInput for any other description."""
    values = dict(spec)
    kind = values.pop("kind", None)
    if kind not in TRIGGERS:
        raise UnusableInput(f"expected a trigger of kind {', '.join(TRIGGERS)}, got {kind!r}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    annotations = get_type_hints(TRIGGERS[kind])
    for key, value in values.items():
        if key in annotations and not matches(value, annotations[key]):
            wanted = getattr(annotations[key], "__name__", annotations[key])
            raise UnusableInput(f"expected {key} of the {kind} trigger as {wanted}, got {value!r:.80}")
        if isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise UnusableInput(f"expected {key} of the {kind} trigger up to {MAX_NUMBER}, got {value}")
    try:
        return TRIGGERS[kind](**values)
    except TypeError as error:
        raise UnusableInput(f"expected settings of the {kind} trigger, got others: {error}") from None
