"""Files of one finding: a JSON file for the result, and an .npz file for the arrays of its evidence.

The JSON file states the circumstances of the test, and the digest of the .npz file. A seal protects both.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay.core.errors import UnusableInput
from assay.core.finding import Evidence, Finding, GraphNode, Outcome
from assay.inversion.families import (
    AdditiveFamily,
    Family,
    FamilyTrigger,
    FrequencyFamily,
    LinfFamily,
    MaskFamily,
    WarpFamily,
    WindowFamily,
)
from assay.io.atomic import write_atomically
from assay.io.files import MAX_JSON_BYTES, any_json
from assay.io.seal import has_seal, seal
from assay.triggers.tokens import Tokens

SCHEMA = "assay.finding/1"
MAX_ARRAY_BYTES = 2**28  # of an .npz file; eight pairs of images of 224 pixels take 10 MB
IMAGES = ("mask", "trigger", "before", "after")  # arrays of ``Evidence``
PARAMETER = "parameter"  # start of the names of the arrays of a trigger's parameters
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (MaskFamily(), AdditiveFamily(), LinfFamily(), FrequencyFamily(), WarpFamily(), WindowFamily())
}

Circumstances = Mapping[str, Any]  # plain JSON values that decide the result of a test


class NotStorable(Exception):
    """A finding that the files cannot hold without a loss."""


@dataclass(frozen=True)
class StoredFinding:
    """Content of the files of one finding."""

    finding: Finding
    circumstances: Circumstances
    made: str  # date and time in UTC


def write_finding(folder: Path, stored: StoredFinding) -> None:
    """Write the files of a finding. The JSON file is there only if the .npz file is complete.

    Args:
        folder: The folder, created if missing.
        stored: The finding and its circumstances.

    Raises:
        NotStorable: The finding holds a trigger of an unknown kind, or too large arrays.
        UnusableInput: The disk does not accept the files.
    """
    arrays = _arrays(stored.finding.evidence)
    content = b""
    if arrays:
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **arrays)
        content = stream.getvalue()
    if len(content) > MAX_ARRAY_BYTES:
        raise NotStorable(f"its arrays take {len(content)} bytes")
    sealed = {
        "schema": SCHEMA,
        "circumstances": dict(stored.circumstances),
        "made": stored.made,
        "finding": _to_json(stored.finding),
        "arrays": hashlib.sha256(content).hexdigest() if arrays else None,
    }
    try:
        text = json.dumps({**sealed, "seal": seal(_canonical(sealed))}, indent=1, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise NotStorable("its texts are no valid Unicode") from None
    if len(text) > MAX_JSON_BYTES:
        raise NotStorable(f"its texts take {len(text)} bytes")
    path = _json_path(folder, stored.finding.variant, stored.finding.detector)
    path.unlink(missing_ok=True)  # an earlier one has other arrays
    if arrays:
        write_atomically(path.with_suffix(".npz"), content, parents=True)
    write_atomically(path, text, parents=True)


def read_finding(folder: Path, variant: str, detector: str) -> StoredFinding | None:
    """Return the stored finding of a test; None if there is none.

    Args:
        folder: The folder.
        variant: Name of the variant.
        detector: Name of the detector.

    Raises:
        UnusableInput: The files are damaged, or another user or machine wrote them.
    """
    path = _json_path(folder, variant, detector)
    if not path.exists():
        return None
    try:
        document = any_json(path)
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise UnusableInput(f"{path}: expected {SCHEMA}, got another schema")
        given = document.pop("seal", None)
        if not has_seal(_canonical(document), given):
            raise UnusableInput(f"{path}: is damaged, or was written by another user or on another machine")
        arrays = {} if document["arrays"] is None else _read_arrays(path.with_suffix(".npz"), document["arrays"])
        finding = _from_json(document["finding"], arrays)
        return StoredFinding(finding, document["circumstances"], document["made"])
    except OSError as error:
        raise UnusableInput(f"{path}: cannot be read: {error.strerror or error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnusableInput(f"{path}: is damaged: {error}") from None


def _json_path(folder: Path, variant: str, detector: str) -> Path:
    """Return the path of the JSON file of a test. A new result of the test replaces an old one."""
    return folder / (re.sub(r"[^A-Za-z0-9_-]+", "-", f"{variant}-{detector}")[:80] + ".json")


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, allow_nan=False).encode()


def _read_arrays(path: Path, digest: str) -> dict[str, np.ndarray]:
    if path.stat().st_size > MAX_ARRAY_BYTES:
        raise UnusableInput(f"{path}: expected at most {MAX_ARRAY_BYTES} bytes, got {path.stat().st_size}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise UnusableInput(f"{path}: is damaged: it has another digest than the JSON file states")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def _arrays(evidence: Evidence) -> dict[str, np.ndarray]:
    """Return the arrays of a finding by name: images, and parameters of the trigger."""
    arrays = {name: array for name in IMAGES if (array := getattr(evidence, name)) is not None}
    if isinstance(evidence.apply, FamilyTrigger):
        parameters = enumerate(evidence.apply.parameters)
        arrays |= {f"{PARAMETER}{number}": tensor.detach().cpu().numpy() for number, tensor in parameters}
    return arrays


def _to_json(finding: Finding) -> dict[str, Any]:
    """Return a finding in plain JSON types, without its arrays."""
    evidence = finding.evidence
    return {
        **{name: getattr(finding, name) for name in ("detector", "outcome", "variant", "reason", "score", "target")},
        **{name: getattr(finding, name) for name in ("technique", "seconds", "unmeasurable", "doubt")},
        "numbers": {name: _plain(value) for name, value in evidence.numbers.items()},
        "per_class": {str(label): _plain(value) for label, value in evidence.per_class.items()},
        "predicted_before": list(evidence.predicted_before),
        "predicted_after": list(evidence.predicted_after),
        "texts": [list(pair) for pair in evidence.texts],
        "graph": [asdict(node) for node in evidence.graph],
        "trigger": _trigger_to_json(evidence),
    }


def _from_json(document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Finding:
    """Return a finding out of the values of ``_to_json`` and its arrays."""
    evidence = Evidence(
        numbers={name: _value(number) for name, number in document["numbers"].items()},
        per_class={int(label): _value(number) for label, number in document["per_class"].items()},
        predicted_before=tuple(document["predicted_before"]),
        predicted_after=tuple(document["predicted_after"]),
        texts=tuple((before, after) for before, after in document["texts"]),
        graph=tuple(
            GraphNode(node["op"], node["name"], tuple(node["inputs"]), tuple(node["outputs"]))
            for node in document["graph"]
        ),
        apply=_trigger_from_json(document["trigger"], arrays),
        **{name: arrays[name] for name in IMAGES if name in arrays},
    )
    names = ("detector", "variant", "reason", "score", "target", "technique", "seconds", "unmeasurable", "doubt")
    return Finding(outcome=Outcome(document["outcome"]), evidence=evidence, **{name: document[name] for name in names})


def _trigger_to_json(evidence: Evidence) -> dict[str, Any] | None:
    if evidence.apply is None:
        return None
    if isinstance(evidence.apply, Tokens):
        return {"tokens": asdict(evidence.apply)}
    if isinstance(evidence.apply, FamilyTrigger) and type(FAMILIES.get(evidence.apply.family.name)) is type(
        evidence.apply.family
    ):
        return {"family": evidence.apply.family.name, "parameters": len(evidence.apply.parameters)}
    raise NotStorable(f"its trigger is a {type(evidence.apply).__name__}")


def _trigger_from_json(
    document: Mapping[str, Any] | None, arrays: Mapping[str, np.ndarray]
) -> FamilyTrigger | Tokens | None:
    if document is None:
        return None
    if "tokens" in document:
        return Tokens(**{**document["tokens"], "ids": tuple(document["tokens"]["ids"])})
    parameters = [torch.from_numpy(arrays[f"{PARAMETER}{number}"]) for number in range(document["parameters"])]
    return FamilyTrigger(FAMILIES[document["family"]], tuple(parameters))


def _plain(value: Any) -> Any:
    """Return a number or text in plain types. A number that is not finite becomes a mapping."""
    value = value.item() if isinstance(value, np.generic) else value
    return {"float": str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _value(plain: Any) -> Any:
    """Return the value behind the result of ``_plain``."""
    return float(plain["float"]) if isinstance(plain, dict) else plain
