"""Audits as compact rows of result files, and their verdicts under the current null distribution."""

from __future__ import annotations

from typing import Any

from assay.auditing.api import audit
from assay.auditing.facts import Preconditions
from assay.auditing.inputs import clean_samples
from assay.auditing.plan import is_default_test
from assay.auditing.verdict import decide
from assay.calibration.data_profile import data_profile
from assay.calibration.file import load_shipped
from assay.calibration.matching import match
from assay.calibration.null import NullDistribution
from assay.calibration.reference import detector_of
from assay.core.dataset import Task
from assay.core.finding import Finding, Outcome
from assay.core.model import Artifact
from assay.core.result import VariantOutcome, VariantResult
from assay.detectors import default_detectors

Row = dict[str, Any]


def audit_row(artifact: Artifact, task: Task, *, seed: int = 0) -> Row:
    """Audit a model and return verdict, variants and all scores as one row."""
    result = audit(artifact, task, seed=seed)
    return {
        "verdict": result.verdict,
        "p_value": result.p_value,
        "statistic": result.statistic,
        "target_found": result.target,
        "seconds": round(result.seconds, 1),
        "samples": result.data_samples,
        "classes": result.model.num_classes,
        "data": data_profile(clean_samples(task, artifact, seed=seed).split.x),
        "variants": {v.name: v.reason or v.accuracy for v in result.variants},
        "findings": {f"{f.variant}/{f.detector}": [f.score, f.p_value, f.target] for f in result.findings},
    }


def with_current_verdict(row: Row) -> Row:
    """Return ``row`` with the verdict of the current default tests and the shipped null distribution.

    The verdict is computed from the stored scores; the model is not audited again.
    """
    findings = {test: finding for test, finding in row["findings"].items() if is_run_by_default(test)}
    return with_verdict(row | {"findings": findings}, load_shipped())


def with_verdict(row: Row, null: NullDistribution | None) -> Row:
    """Return ``row`` with the verdict of its stored scores under ``null``."""
    findings = tuple(
        Finding(
            detector_of(test),
            Outcome.ABSTAINED if score is None else Outcome.SCORED,
            test.rpartition("/")[0],
            score=score,
            target=target,
        )
        for test, (score, _, target) in row["findings"].items()
    )
    variants = tuple(
        _untested(name, value) if isinstance(value, str) else VariantResult(name, "", value)
        for name, value in row["variants"].items()
    )
    accuracy = next(variant.accuracy for variant in variants if variant.name == "full")
    preconditions = Preconditions(row["samples"], row["classes"], accuracy=accuracy)
    matched = None if null is None else match(null, accuracy, row["data"])
    verdict, null = decide(findings, variants, matched, preconditions)
    p_values = {
        test: [score, null.p_value(test, score) if null and score is not None else None, target]
        for test, (score, _, target) in row["findings"].items()
    }
    new = {"verdict": verdict.word, "p_value": verdict.p_value, "statistic": verdict.statistic}
    return {**row, **new, "target_found": verdict.target, "findings": p_values}


def _untested(name: str, reason: str) -> VariantResult:
    # Rows hold the reason of an untested variant as text.
    outcome = VariantOutcome.BROKEN if "compression broke" in reason else VariantOutcome.UNAVAILABLE
    return VariantResult(name, "", None, outcome=outcome, reason=reason)


def is_run_by_default(test: str) -> bool:
    """Return True if default audits run the test ``VARIANT/DETECTOR``."""
    variant, detectors = test.rpartition("/")[0], default_detectors()
    return any(is_default_test(variant, detector) for detector in detectors if detector.name == detector_of(test))


def is_conclusive(row: Row) -> bool:
    """Return True if the audit gave a verdict.

    Inconclusive audits compare with other reference models, so their statistic is on another scale.
    """
    return bool(row["verdict"] != "inconclusive")
