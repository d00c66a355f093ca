"""Audit as JSON with the schema ``assay.audit/2``, published as ``audit.schema.json`` in this folder."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Any

import numpy as np

from assay.core.finding import Evidence, Finding
from assay.core.result import Audit, SweepPoint
from assay.io.jsonable import jsonable

SCHEMA = "assay.audit/2"
MAX_IMAGE_SIDE = 64  # pixels; the JSON leaves out larger images, the .npz files of the report contain them


def to_json(audit: Audit) -> dict[str, Any]:
    """Return the whole audit in plain JSON types. Numbers that are not finite become null."""
    document = {
        "schema": SCHEMA,
        "version": audit.version,
        "verdict": audit.verdict,
        "status": audit.status,
        "reason": audit.reason,
        "p_value": audit.p_value,
        "false_alarm_rate": audit.false_alarm_rate,
        "combined_statistic": audit.statistic,
        "target": audit.target,
        "strongest_test": audit.strongest,
        "model": asdict(audit.model),
        "findings": [_finding(finding) for finding in audit.findings],
        "variants": [
            {
                "name": variant.name,
                "description": variant.spec,
                "accuracy": variant.accuracy,
                "agreement": variant.agreement,
                "outcome": variant.outcome,
                "reason": variant.reason,
            }
            for variant in audit.variants
        ],
        "limits": list(audit.limits),
        "null_distribution": None if audit.null is None else asdict(audit.null),
        "seconds": audit.seconds,
        "seed": audit.seed,
        "command": audit.command,
        "trigger_sweep": [_sweep_point(point) for point in audit.trigger_sweep],
        "deployment": None if audit.deployment is None else asdict(audit.deployment),
        "notes": list(audit.notes),
        "input_check": None if audit.input_check is None else asdict(audit.input_check),
        "quick": None if audit.quick is None else asdict(audit.quick),
        "data": {"name": audit.data_name, "samples": audit.data_samples, "sha256": audit.data_digest},
    }
    return {key: jsonable(value) for key, value in document.items()}


def dumps(document: dict[str, Any]) -> str:
    """Return indented ASCII JSON with a final newline; each list of numbers is on one line."""
    # The escape keeps the text inside a script element of an HTML page. JSON allows it in strings only.
    text = json.dumps(document, indent=2, allow_nan=False).replace("</", "<\\/")
    # JSON strings contain no raw newline, so this pattern cannot match inside one.
    return re.sub(r"\[\n\s+([^\[\]{}\"]+?)\n\s+\]", lambda rows: "[" + " ".join(rows[1].split()) + "]", text) + "\n"


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "detector": finding.detector,
        "variant": finding.variant,
        "outcome": finding.outcome,
        "reason": finding.reason,
        "score": finding.score,
        "p_value": finding.p_value,
        "target": finding.target,
        "technique": finding.technique,
        "seconds": finding.seconds,
        "evidence": _evidence(finding.evidence),
        "reference_scores": finding.null_scores,
    }


def _sweep_point(point: SweepPoint) -> dict[str, Any]:
    return {
        "compression": point.kind,
        "level": point.step,
        "agreement": point.agreement,
        "trigger_success": point.success,
        "target": point.target,
        "test": point.test,
    }


def _evidence(evidence: Evidence) -> dict[str, Any]:
    images = {"mask": _rows(evidence.mask), "trigger": _rows(evidence.trigger)}
    predictions = {"predicted_before": evidence.predicted_before, "predicted_after": evidence.predicted_after}
    return {
        "numbers": dict(evidence.numbers),
        "per_class": dict(evidence.per_class),
        **{name: rows for name, rows in images.items() if rows is not None},
        **{name: list(classes) for name, classes in predictions.items() if classes},
        **({"graph": [asdict(node) for node in evidence.graph]} if evidence.graph else {}),
        **({"texts": [list(pair) for pair in evidence.texts]} if evidence.texts else {}),
    }


def _rows(array: np.ndarray | None) -> list[Any] | None:
    """Return nested lists, rounded to four digits; None for an image that is missing, large or not finite."""
    if array is None or max(np.shape(array)[-2:], default=0) > MAX_IMAGE_SIDE or not np.isfinite(array).all():
        return None
    return np.asarray(array, dtype=np.float64).round(4).tolist()
