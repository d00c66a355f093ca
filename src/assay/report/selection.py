"""Which findings speak for the verdict, and which speaks loudest."""

from __future__ import annotations

import math
from collections.abc import Iterable

from assay.calibration.null import cell
from assay.core.finding import Finding
from assay.core.result import Audit


def decisive_findings(audit: Audit) -> tuple[Finding, ...]:
    """The findings on which the verdict "backdoored" rests: those at or below the false-alarm rate, and the smallest p.

    Those that need no comparison, where there are any. Empty for any other verdict. Where nothing is calibrated, every
    finding that has a score counts.
    """
    if audit.verdict != "backdoored":
        return ()
    if proven := tuple(finding for finding in audit.findings if finding.proof):
        return proven
    scored = tuple(finding for finding in audit.findings if finding.status == "ok")
    values = [p for finding in scored if (p := finite_p_value(finding)) is not None]
    if not values:
        return scored
    bound = max(min(values), audit.false_alarm_rate or 0.0)
    return tuple(finding for finding in scored if (p := finite_p_value(finding)) is not None and p <= bound)


def strongest_finding(audit: Audit, findings: Iterable[Finding]) -> Finding | None:
    """The finding that the verdict rests on, if it is among these.

    Else the one with the smallest p-value; among equals the one that agrees with the verdict's target and shows most:
    conformal p-values tie often, as none can be below 1 / (reference models + 1).
    """
    findings = tuple(findings)
    for finding in findings:
        if cell(finding.variant, finding.detector) == audit.strongest:
            return finding

    def rank(finding: Finding) -> tuple[float, bool, bool, float]:
        p, score = finite_p_value(finding), finding.score
        agrees = finding.target is not None and finding.target == audit.target
        shows = finding.evidence.trigger is not None or finding.evidence.after is not None
        return (2.0 if p is None else p, not agrees, not shows, -(score if score is not None else -math.inf))

    return min((finding for finding in findings if finding.status == "ok"), key=rank, default=None)


def finite_p_value(finding: Finding) -> float | None:
    """The finding's p-value, None where it has none that is a number."""
    p = finding.p_value
    return p if p is not None and math.isfinite(p) else None
