"""The whole audit as one more detector of a matrix: its statistic is the score, its verdict stands beside it."""

from __future__ import annotations

from assay.auditing.api import audit
from assay.core.dataset import Split
from assay.core.finding import Evidence, Finding
from assay.core.model import Artifact
from assay.core.result import Audit

WHOLE = "audit"
"""What a spec calls it, among its detectors."""


def whole(artifact: Artifact, clean: Split, *, seed: int) -> Finding:
    """Every detector on every form, against the shipped reference models, as ``assay audit`` does it."""
    result = audit(artifact, clean, seed=seed)
    if result.statistic is None:
        return Finding(WHOLE, "abstained", reason=result.reason)
    return Finding(WHOLE, "ok", score=result.statistic, target=result.target, evidence=_evidence(result))


def _evidence(result: Audit) -> Evidence:
    """The verdict, and the trigger of the test that it rests on."""
    said: dict[str, float | int | str] = {"verdict": result.verdict, "reason": result.reason}
    if result.p_value is not None:
        said["p_value"] = result.p_value
    strongest = next((f for f in result.findings if f"{f.variant}/{f.detector}" == result.strongest), None)
    if strongest is None:
        return Evidence(said)
    shown = strongest.evidence
    return Evidence(said, trigger=shown.trigger, before=shown.before, after=shown.after)
