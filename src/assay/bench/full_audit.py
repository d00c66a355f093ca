"""The full audit as a detector of a matrix: its statistic is the score, and the evidence holds its verdict."""

from __future__ import annotations

from assay.auditing.api import audit
from assay.bench.spec import FULL_AUDIT
from assay.core.dataset import Split
from assay.core.finding import Evidence, Finding, Outcome
from assay.core.model import Artifact
from assay.core.result import Audit


def run_full_audit(artifact: Artifact, clean: Split, *, seed: int) -> Finding:
    """Run every detector on every variant with the shipped reference models, like ``assay audit``."""
    result = audit(artifact, clean, seed=seed)
    if result.statistic is None:
        return Finding(FULL_AUDIT, Outcome.ABSTAINED, reason=result.reason)
    return Finding(FULL_AUDIT, Outcome.SCORED, score=result.statistic, target=result.target, evidence=_evidence(result))


def _evidence(result: Audit) -> Evidence:
    """Return the verdict, and the trigger of the strongest finding."""
    numbers: dict[str, float | int | str] = {"verdict": result.verdict, "reason": result.reason}
    if result.p_value is not None:
        numbers["p_value"] = result.p_value
    strongest = next((f for f in result.findings if f"{f.variant}/{f.detector}" == result.strongest), None)
    if strongest is None:
        return Evidence(numbers)
    found = strongest.evidence
    return Evidence(numbers, trigger=found.trigger, before=found.before, after=found.after)
