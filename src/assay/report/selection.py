"""Selection of the findings behind a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from assay.calibration.reference import make_test_id
from assay.core.finding import Finding
from assay.core.result import Audit


def decisive_findings(audit: Audit) -> tuple[Finding, ...]:
    """Return the findings behind the verdict "backdoored"; none for any other verdict.

    Proven findings take precedence. Otherwise these are the findings with a p-value at or below the false-alarm rate,
    and the smallest p-value. Without any p-value, all findings with a score count.
    """
    if audit.verdict != "backdoored":
        return ()
    if proven := tuple(finding for finding in audit.findings if finding.proof):
        return proven
    scored = tuple(finding for finding in audit.findings if finding.outcome.completed)
    values = [p for finding in scored if (p := finite_p_value(finding)) is not None]
    if not values:
        return scored
    bound = max(min(values), audit.false_alarm_rate or 0.0)
    return tuple(finding for finding in scored if (p := finite_p_value(finding)) is not None and p <= bound)


def strongest_finding(audit: Audit, findings: Iterable[Finding]) -> Finding | None:
    """Return the strongest of some findings.

    The test that the verdict names comes first, then the smallest p-value. Conformal p-values tie often, as none is
    below 1 / (reference models + 1). Among equal ones, agreement with the target of the verdict and evidence to show
    decide.

    Args:
        audit: The audit with the verdict.
        findings: The candidates.

    Returns:
        The strongest finding with a score, or None without any.
    """
    findings = tuple(findings)
    for finding in findings:
        if make_test_id(finding.variant, finding.detector) == audit.strongest:
            return finding

    def rank(finding: Finding) -> tuple[float, bool, bool, float]:
        p, score = finite_p_value(finding), finding.score
        agrees = finding.target is not None and finding.target == audit.target
        has_images = finding.evidence.trigger is not None or finding.evidence.after is not None
        return (2.0 if p is None else p, not agrees, not has_images, -(score if score is not None else -math.inf))

    return min((finding for finding in findings if finding.outcome.completed), key=rank, default=None)


def finite_p_value(finding: Finding) -> float | None:
    """Return the p-value of a finding, or None if it is missing or not finite."""
    p = finding.p_value
    return p if p is not None and math.isfinite(p) else None


def quick_extent(audit: Audit) -> dict[str, Sequence[str]] | None:
    """Return the tests that a quick audit completed and left out, with keys in camel case; None for a full audit."""
    return None if audit.quick is None else {"completed": audit.quick.completed, "leftOut": audit.quick.left_out}


def tests_not_run(audit: Audit) -> tuple[str, ...]:
    """Return the tests that a quick audit did not run, as "variant/detector"; none for a full audit."""
    if audit.quick is None:
        return ()
    ran = {make_test_id(finding.variant, finding.detector) for finding in audit.findings}
    return tuple(test for test in audit.quick.left_out if test not in ran)
