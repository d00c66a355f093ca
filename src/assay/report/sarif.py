"""Audit as SARIF 2.1.0, for code scanning services."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from assay.core.finding import BACKDOOR_TECHNIQUE, Finding
from assay.core.result import Audit
from assay.io.jsonable import jsonable
from assay.report.formatting import class_name, display_text, format_number, format_p_value
from assay.report.selection import decisive_findings

SCHEMA_URI = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ATLAS = "MITRE ATLAS"
ATLAS_NAMES = {BACKDOOR_TECHNIQUE: "Manipulate AI Model: Poison AI Model"}
INCONCLUSIVE = "audit-inconclusive"


def to_sarif(audit: Audit) -> dict[str, Any]:
    """Return one run: a rule per detector, a result per decisive finding, and a note per test without a score."""
    techniques = sorted({finding.technique for finding in audit.findings} | {BACKDOOR_TECHNIQUE})
    rules = _rules(audit, techniques)
    run = {
        "tool": {
            "driver": {
                "name": "assay",
                "version": audit.version,
                "semanticVersion": audit.version,
                "rules": rules,
                "supportedTaxonomies": [{"name": ATLAS, "index": 0}],
            }
        },
        "taxonomies": [_taxonomy(techniques)],
        "automationDetails": {"id": f"assay/audit/{audit.model.digest[:16]}"},
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": _notes(audit, rules)}],
        "artifacts": [{"location": _location(audit), "roles": ["analysisTarget"]}],
        "results": _results(audit, rules, techniques),
        "properties": {
            "verdict": audit.verdict,
            "pValue": audit.p_value,
            "falseAlarmRate": audit.false_alarm_rate,
            "modelDigest": audit.model.digest,
            "planted": audit.model.planted,
        },
    }
    return jsonable({"$schema": SCHEMA_URI, "version": "2.1.0", "runs": [run]})


def _rules(audit: Audit, techniques: list[str]) -> list[dict[str, Any]]:
    detectors = {finding.detector: finding.technique for finding in audit.findings}
    rules = [
        _rule(
            name,
            f"{display_text(name)} finds evidence of a backdoor in the model.",
            "error",
            technique,
            techniques,
        )
        for name, technique in detectors.items()
    ]
    description = "The audit could not decide whether the model carries a backdoor."
    return [*rules, _rule(INCONCLUSIVE, description, "warning", BACKDOOR_TECHNIQUE, techniques)]


def _rule(name: str, description: str, level: str, technique: str, techniques: list[str]) -> dict[str, Any]:
    reference = {"id": technique, "index": techniques.index(technique), "toolComponent": {"name": ATLAS, "index": 0}}
    advice = "Read the report before you deploy the model: it shows the reconstructed trigger, if there is one."
    return {
        "id": name,
        "shortDescription": {"text": description},
        "fullDescription": {"text": f"{description} MITRE ATLAS technique {technique}."},
        "help": {"text": f"{description} {advice}"},
        "defaultConfiguration": {"level": level},
        "relationships": [{"target": reference, "kinds": ["relevant"]}],
        "properties": {
            "tags": ["security", "backdoor", f"external/mitre-atlas/{technique.lower()}", technique],
            "security-severity": "9.0" if level == "error" else "4.0",
        },
    }


def _taxonomy(techniques: list[str]) -> dict[str, Any]:
    return {
        "name": ATLAS,
        "organization": "MITRE",
        "informationUri": "https://atlas.mitre.org",
        "shortDescription": {"text": "Adversarial Threat Landscape for Artificial-Intelligence Systems"},
        "taxa": [
            {
                "id": technique,
                "name": ATLAS_NAMES.get(technique, technique),
                "helpUri": f"https://atlas.mitre.org/techniques/{quote(technique)}",
            }
            for technique in techniques
        ],
    }


def _results(audit: Audit, rules: list[dict[str, Any]], techniques: list[str]) -> list[dict[str, Any]]:
    if audit.verdict == "inconclusive":
        text = f"Inconclusive: {display_text(audit.reason, 1000)}"
        return [_result(audit, rules, techniques, INCONCLUSIVE, text, None)]
    return [
        _result(audit, rules, techniques, finding.detector, _message(audit, finding), finding)
        for finding in decisive_findings(audit)
    ]


def _result(
    audit: Audit, rules: list[dict[str, Any]], techniques: list[str], rule: str, text: str, finding: Finding | None
) -> dict[str, Any]:
    technique = BACKDOOR_TECHNIQUE if finding is None else finding.technique
    identity = f"{audit.model.digest}|{rule}|{'' if finding is None else finding.variant}"
    properties: dict[str, Any] = {}
    if finding is not None:
        properties = {"variant": finding.variant, "score": finding.score, "pValue": finding.p_value}
    return {
        "ruleId": rule,
        "ruleIndex": [item["id"] for item in rules].index(rule),
        "level": "warning" if finding is None else "error",
        "message": {"text": text},
        # A model has no lines, but code scanning services hide a result without one.
        "locations": [{"physicalLocation": {"artifactLocation": _location(audit), "region": {"startLine": 1}}}],
        "partialFingerprints": {
            "assayModelDigest/v1": audit.model.digest,
            "assayFinding/v1": hashlib.sha256(identity.encode("utf-8", "backslashreplace")).hexdigest(),
        },
        "taxa": [{"id": technique, "index": techniques.index(technique), "toolComponent": {"name": ATLAS, "index": 0}}],
        "properties": {**properties, "target": audit.target if finding is None else finding.target},
    }


def _message(audit: Audit, finding: Finding) -> str:
    target = "" if finding.target is None else f" towards {class_name(audit, finding.target)!r}"
    detector, variant = display_text(finding.detector), display_text(finding.variant)
    return (
        f"Backdoor{target} found by {detector} in variant {variant!r}: score {format_number(finding.score)}, "
        f"p-value {format_p_value(finding.p_value)}. {display_text(audit.reason, 1000)}"
    )


def _notes(audit: Audit, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one note for each test without a score and each variant without tests."""
    order = [rule["id"] for rule in rules]
    notes: list[dict[str, Any]] = []
    for finding in audit.findings:
        if not finding.outcome.completed:
            level = "error" if finding.outcome.status == "failed" else "note"
            rule = {"id": finding.detector, "index": order.index(finding.detector)}
            subject = f"{finding.outcome} on {finding.variant}"
            notes.append(_note(level, subject, finding.reason, {"associatedRule": rule}))
    for variant in audit.variants:
        if variant.reason:
            notes.append(_note("note", f"variant {variant.name} not tested", variant.reason, {}))
    return notes


def _note(level: str, subject: str, reason: str, extra: dict[str, Any]) -> dict[str, Any]:
    return {
        "level": level,
        "message": {"text": f"{display_text(subject)}: {display_text(reason, 600)}"},
        **extra,
    }


def _location(audit: Audit) -> dict[str, Any]:
    """Return the path of the model as a URI, relative to the working folder if possible, as such services expect."""
    path = jsonable(audit.model.path) or "model"
    if os.path.isabs(path):
        try:
            path = str(Path(path).relative_to(Path.cwd()))
        except (ValueError, OSError):
            return {"uri": "file://" + quote(path), "index": 0}
    return {"uri": quote(Path(path).as_posix()), "uriBaseId": "%SRCROOT%", "index": 0}
