"""Audit as an in-toto statement: the verdict on files with these digests.

in-toto Attestation Framework, Statement v1: https://github.com/in-toto/attestation. The predicate is our own;
docs/attestations.md describes its fields.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from assay.core.result import Audit
from assay.io.jsonable import jsonable
from assay.report.selection import quick_extent

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
# An identifier, never fetched: names below .example have no owner (RFC 2606).
PREDICATE_TYPE = "https://assay.example/audit/v1"
MODEL_DIGEST = "assayModelDigest"  # of a model without files: digest over the weights in memory
REPRODUCIBLE_DATE = "SOURCE_DATE_EPOCH"  # environment variable of reproducible builds: seconds since 1970


def to_statement(audit: Audit, reports: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the statement of an audit.

    Args:
        audit: The audit.
        reports: Content of its other reports by file name. The statement holds their digests.
    """
    return jsonable(
        {
            "_type": STATEMENT_TYPE,
            "subject": _subject(audit),
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "verdict": audit.verdict,
                "status": audit.status,
                "reason": audit.reason,
                "pValue": audit.p_value,
                "errorRate": audit.false_alarm_rate,
                "target": audit.target,
                "strongestTest": audit.strongest,
                "model": {
                    "path": audit.model.path,
                    "digest": audit.model.digest,
                    "format": audit.model.format,
                    "arch": audit.model.arch,
                    "planted": audit.model.planted,
                },
                "variants": [
                    {"name": item.name, "description": item.spec, "outcome": item.outcome, "reason": item.reason}
                    for item in audit.variants
                ],
                "tests": [
                    {
                        "detector": item.detector,
                        "variant": item.variant,
                        "outcome": item.outcome,
                        "pValue": item.p_value,
                    }
                    for item in audit.findings
                ],
                "quick": quick_extent(audit),
                "limits": list(audit.limits),
                "deployment": _deployment(audit),
                "nullDistribution": None
                if audit.null is None
                else {"name": audit.null.name, "models": audit.null.models, "sha256": audit.null.digest},
                "data": {"name": audit.data_name, "samples": audit.data_samples, "sha256": audit.data_digest},
                "seed": audit.seed,
                "command": audit.command,
                "assayVersion": audit.version,
                "finishedOn": _now(),
                "reports": [
                    {"name": name, "digest": {"sha256": hashlib.sha256(content).hexdigest()}}
                    for name, content in sorted(reports.items())
                ],
            },
        }
    )


def _subject(audit: Audit) -> list[dict[str, Any]]:
    if not audit.model.files:
        return [{"name": audit.model.path, "digest": {MODEL_DIGEST: audit.model.digest}}]
    return [{"name": file.name, "digest": {"sha256": file.sha256}} for file in audit.model.files]


def _deployment(audit: Audit) -> dict[str, Any] | None:
    if audit.deployment is None:
        return None
    return {
        "ways": [
            {"name": way.name, "inputs": way.inputs, "agrees": way.agrees, "reason": way.reason}
            for way in audit.deployment.ways
        ],
        "differences": [
            {"way": part.way, "kind": part.kind, "sentence": part.sentence} for part in audit.deployment.differences
        ],
    }


def _now() -> str:
    """Return the current time in UTC, or the time of SOURCE_DATE_EPOCH."""
    given = os.environ.get(REPRODUCIBLE_DATE, "")
    now = datetime.fromtimestamp(int(given), UTC) if given.isdecimal() and len(given) < 12 else datetime.now(UTC)
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")
