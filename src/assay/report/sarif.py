"""Audit as SARIF 2.1.0, for code scanning services."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import quote

from assay.core.finding import BACKDOOR_TECHNIQUE, Finding
from assay.core.result import Audit
from assay.io.jsonable import jsonable
from assay.report.formatting import class_name, display_text, format_number, format_p_value
from assay.report.repository_path import RepositoryPath, full_name, repository_path
from assay.report.selection import decisive_findings, quick_extent, tests_not_run

SCHEMA_URI = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ATLAS = "MITRE ATLAS"
ATLAS_NAMES = {BACKDOOR_TECHNIQUE: "Manipulate AI Model: Poison AI Model"}
INCONCLUSIVE = "audit-inconclusive"
SOURCE_ROOT = "%SRCROOT%"  # name of SARIF producers for the root of the repository
EXIT_CODES = {"pass": 0, "fail": 1, "unknown": 3}  # of `assay audit`


def to_sarif(audit: Audit) -> dict[str, Any]:
    """Return one run: a rule per detector, a result per decisive finding, and a note per test without a score.

    A clean model has no result, because GitHub shows a result of the kind "pass" as an alert.
    """
    place = repository_path(audit.model)
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
        # GitHub takes the text before the last slash as the category. An upload closes the alerts of earlier uploads of
        # its category, so each model has its own.
        "automationDetails": {"id": f"assay/audit/{place.identity(audit.model.digest)}/"},
        "originalUriBaseIds": {SOURCE_ROOT: {"description": {"text": "The root of the repository."}}},
        "invocations": [
            {
                "executionSuccessful": True,  # the audit ran to its end, also if it is inconclusive
                "exitCode": EXIT_CODES[audit.status],
                "exitCodeDescription": f"status {audit.status}, verdict {audit.verdict}",
                "toolExecutionNotifications": _notes(audit, rules),
            }
        ],
        "artifacts": _artifacts(audit, place),
        "results": _results(audit, rules, techniques),
        "properties": {
            "verdict": audit.verdict,
            "status": audit.status,
            "pValue": audit.p_value,
            "falseAlarmRate": audit.false_alarm_rate,
            "modelDigest": audit.model.digest,
            "planted": audit.model.planted,
            "quick": quick_extent(audit),
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
    fingerprint = hashlib.sha256(identity.encode("utf-8", "backslashreplace")).hexdigest()
    properties: dict[str, Any] = {"status": audit.status}
    if finding is not None:
        properties |= {"variant": finding.variant, "score": finding.score, "pValue": finding.p_value}
    return {
        "ruleId": rule,
        "ruleIndex": [item["id"] for item in rules].index(rule),
        # An inconclusive audit fails its rule, too. SARIF gives the kind "open" no level, and services hide it then.
        "kind": "fail",
        "level": "warning" if finding is None else "error",
        "message": {"text": text},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": repository_path(audit.model).uri, "uriBaseId": SOURCE_ROOT, "index": 0},
                    "region": {"startLine": 1},  # a model has no lines; GitHub hides a result without a line
                },
                "logicalLocations": [{"fullyQualifiedName": full_name(audit.model), "kind": "resource"}],
            }
        ],
        # With the model's digest: an alert that a user dismissed does not stay dismissed for another model.
        "partialFingerprints": {
            "assayModelDigest/v1": audit.model.digest,
            "assayFinding/v1": fingerprint,
            "primaryLocationLineHash": f"{fingerprint[:16]}:1",  # the only one that GitHub compares
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
    notes += [_note("note", f"{test} not run", "left out by a quick audit", {}) for test in tests_not_run(audit)]
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


def _artifacts(audit: Audit, place: RepositoryPath) -> list[dict[str, Any]]:
    """Return the model, and its files if it is a folder or has more than one.

    Args:
        audit: The audit.
        place: Place of the model.
    """
    files, digests = audit.model.files, {} if audit.model.files else {"sha-256": audit.model.digest}
    if len(files) == 1:
        digests = {"sha-256": files[0].sha256}
    model: dict[str, Any] = {
        "location": {"uri": place.uri, "uriBaseId": SOURCE_ROOT, "index": 0},
        "description": {"text": f"Model: {full_name(audit.model)}"},
        "roles": ["analysisTarget"],
        **({"hashes": digests} if digests else {}),
    }
    if len(files) <= 1:
        return [model]
    parts = [
        {
            "description": {"text": f"File of the model: {display_text(file.name)}"},
            "roles": ["analysisTarget"],
            "hashes": {"sha-256": file.sha256},
            "parentIndex": 0,
        }
        for file in files
    ]
    return [model, *parts]
