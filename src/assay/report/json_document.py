"""The audit as JSON, schema ``assay.audit/1`` (``audit.schema.json`` beside this file)."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from typing import Any

import numpy as np

from assay.core.finding import Evidence, Finding
from assay.core.result import Audit, VariantResult

SCHEMA = "assay.audit/1"
LARGEST_PICTURE = 64
"""Pictures of at most this height and width stand in the JSON; larger ones only in the .npz files beside it."""


def to_json(audit: Audit) -> dict[str, Any]:
    """The whole audit in plain JSON types; numbers that are not finite become null."""
    document = {
        "schema": SCHEMA,
        "version": audit.version,
        "verdict": audit.verdict,
        "reason": audit.reason,
        "p_value": audit.p_value,
        "false_alarm_rate": audit.false_alarm_rate,
        "statistic": audit.statistic,
        "target": audit.target,
        "strongest": audit.strongest,
        "model": asdict(audit.model),
        "findings": [_finding(finding) for finding in audit.findings],
        "variants": [_variant(variant) for variant in audit.variants],
        "limits": list(audit.limits),
        "null": None if audit.null is None else asdict(audit.null),
        "seconds": audit.seconds,
        "seed": audit.seed,
        "command": audit.command,
        "waking": [asdict(point) for point in audit.waking],
        "notes": list(audit.notes),
        "data": {"name": audit.data_name, "samples": audit.data_samples},
    }
    return {key: plain(value) for key, value in document.items()}


def dumps(document: dict[str, Any]) -> str:
    """Indented JSON in ASCII with a newline at its end, lists of numbers on one line each."""
    text = json.dumps(document, indent=2, allow_nan=False)
    # A raw newline never stands inside a JSON string, so this cannot match in one.
    return re.sub(r"\[\n\s+([^\[\]{}\"]+?)\n\s+\]", lambda rows: "[" + " ".join(rows[1].split()) + "]", text) + "\n"


def plain(value: Any) -> Any:
    """``value`` in types and texts that any JSON reader takes: no NaN, no NumPy scalars, no broken Unicode."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "detector": finding.detector,
        "variant": finding.variant,
        "status": finding.status,
        "reason": finding.reason,
        "proof": finding.proof,
        "score": finding.score,
        "p_value": finding.p_value,
        "target": finding.target,
        "technique": finding.technique,
        "seconds": finding.seconds,
        "evidence": _evidence(finding.evidence),
        "null_scores": finding.null_scores,
    }


def _evidence(evidence: Evidence) -> dict[str, Any]:
    pictures = {"mask": _rows(evidence.mask), "trigger": _rows(evidence.trigger)}
    said = {"said_before": evidence.said_before, "said_after": evidence.said_after}
    return {
        "numbers": dict(evidence.numbers),
        "per_class": dict(evidence.per_class),
        **{name: rows for name, rows in pictures.items() if rows is not None},
        **{name: list(classes) for name, classes in said.items() if classes},
        **({"graph": [asdict(node) for node in evidence.graph]} if evidence.graph else {}),
        **({"texts": [list(pair) for pair in evidence.texts]} if evidence.texts else {}),
    }


def _rows(array: np.ndarray | None) -> list[Any] | None:
    """Nested lists rounded to four digits, or None where the picture is absent, large or not finite."""
    if array is None or max(np.shape(array)[-2:], default=0) > LARGEST_PICTURE or not np.isfinite(array).all():
        return None
    return np.asarray(array, dtype=np.float64).round(4).tolist()


def _variant(variant: VariantResult) -> dict[str, Any]:
    return asdict(variant)
