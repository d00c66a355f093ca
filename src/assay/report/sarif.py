"""The audit as SARIF 2.1.0, for code scanning services."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from assay.core.finding import BACKDOOR_TECHNIQUE, Finding
from assay.core.result import Audit
from assay.report import formatting, selection
from assay.report.json_document import plain

SCHEMA_URI = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ATLAS = "MITRE ATLAS"
ATLAS_NAMES = {BACKDOOR_TECHNIQUE: "Manipulate AI Model: Poison AI Model"}
INCONCLUSIVE = "audit-inconclusive"


def to_sarif(audit: Audit) -> dict[str, Any]:
    """One run: a rule per detector, a result per finding that the verdict rests on, notes for what did not run."""
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
    return plain({"$schema": SCHEMA_URI, "version": "2.1.0", "runs": [run]})


def _rules(audit: Audit, techniques: list[str]) -> list[dict[str, Any]]:
    detectors = {finding.detector: finding.technique for finding in audit.findings}
    rules = [
        _rule(
            name,
            f"{formatting.display_text(name)} finds evidence of a backdoor in the model.",
            "error",
            technique,
            techniques,
        )
        for name, technique in detectors.items()
    ]
    silent = "The audit could not decide whether the model carries a backdoor."
    return [*rules, _rule(INCONCLUSIVE, silent, "warning", BACKDOOR_TECHNIQUE, techniques)]


def _rule(name: str, description: str, level: str, technique: str, techniques: list[str]) -> dict[str, Any]:
    reference = {"id": technique, "index": techniques.index(technique), "toolComponent": {"name": ATLAS, "index": 0}}
    advice = "Do not deploy the model before its report has been read: it shows the trigger, if one was reconstructed."
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
        text = f"Inconclusive: {formatting.display_text(audit.reason, 1000)}"
        return [_result(audit, rules, techniques, INCONCLUSIVE, text, None)]
    return [
        _result(audit, rules, techniques, finding.detector, _message(audit, finding), finding)
        for finding in selection.decisive_findings(audit)
    ]


def _result(
    audit: Audit, rules: list[dict[str, Any]], techniques: list[str], rule: str, text: str, finding: Finding | None
) -> dict[str, Any]:
    technique = BACKDOOR_TECHNIQUE if finding is None else finding.technique
    identity = f"{audit.model.digest}|{rule}|{'' if finding is None else finding.variant}"
    found = {} if finding is None else {"variant": finding.variant, "score": finding.score, "pValue": finding.p_value}
    return {
        "ruleId": rule,
        "ruleIndex": [item["id"] for item in rules].index(rule),
        "level": "warning" if finding is None else "error",
        "message": {"text": text},
        # A model has no lines, but code scanning services do not show a result without one.
        "locations": [{"physicalLocation": {"artifactLocation": _location(audit), "region": {"startLine": 1}}}],
        "partialFingerprints": {
            "assayModelDigest/v1": audit.model.digest,
            "assayFinding/v1": hashlib.sha256(identity.encode("utf-8", "backslashreplace")).hexdigest(),
        },
        "taxa": [{"id": technique, "index": techniques.index(technique), "toolComponent": {"name": ATLAS, "index": 0}}],
        "properties": {**found, "target": audit.target if finding is None else finding.target},
    }


def _message(audit: Audit, finding: Finding) -> str:
    target = "" if finding.target is None else f" towards {formatting.class_name(audit, finding.target)!r}"
    detector, variant = formatting.display_text(finding.detector), formatting.display_text(finding.variant)
    return (
        f"Backdoor{target} found by {detector} in the form {variant!r}: score {formatting.format_number(finding.score)}, "
        f"p-value {formatting.format_p_value(finding.p_value)}. {formatting.display_text(audit.reason, 1000)}"
    )


def _notes(audit: Audit, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Why a detector or a whole form was not part of the audit."""
    order = [rule["id"] for rule in rules]
    notes: list[dict[str, Any]] = []
    for finding in audit.findings:
        if finding.status != "ok":
            level = "error" if finding.status == "failed" else "note"
            rule = {"id": finding.detector, "index": order.index(finding.detector)}
            what = f"{finding.status} on {finding.variant}"
            notes.append(_note(level, what, finding.reason, {"associatedRule": rule}))
    for variant in audit.variants:
        if variant.skipped:
            notes.append(_note("note", f"form {variant.name} not searched", variant.skipped, {}))
    return notes


def _note(level: str, what: str, why: str, extra: dict[str, Any]) -> dict[str, Any]:
    return {
        "level": level,
        "message": {"text": f"{formatting.display_text(what)}: {formatting.display_text(why, 600)}"},
        **extra,
    }


def _location(audit: Audit) -> dict[str, Any]:
    """The model's path as a URI: relative to the working folder where it lies in it, as such services want it."""
    path = plain(audit.model.path) or "model"
    if os.path.isabs(path):
        try:
            path = str(Path(path).relative_to(Path.cwd()))
        except (ValueError, OSError):
            return {"uri": "file://" + quote(path), "index": 0}
    return {"uri": quote(Path(path).as_posix()), "uriBaseId": "%SRCROOT%", "index": 0}
