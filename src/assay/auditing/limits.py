"""Limits of an audit, in sentences for people."""

from __future__ import annotations

from assay.auditing.quick import left_out_in_words
from assay.calibration.reference import make_test_id
from assay.core.finding import Finding, Outcome
from assay.core.result import QuickScope, VariantResult
from assay.detectors import default_detectors


def limits(
    findings: tuple[Finding, ...],
    results: tuple[VariantResult, ...],
    *,
    labelled: bool = True,
    unexamined_outputs: tuple[str, ...] = (),
    quick: QuickScope | None = None,
) -> tuple[str, ...]:
    """Return the limits of an audit: backdoors outside of its reach, and tests without a result.

    Args:
        findings: Findings of all detectors on all variants, with p-values.
        results: Results of all variants.
        labelled: Whether the clean samples have labels.
        unexamined_outputs: Names of the model's outputs besides the audited one.
        quick: Extent of a quick audit; None: the full audit.
    """
    sentences = [
        "The search finds triggers that send all images to one class. It may miss a trigger that works only on images "
        "of one class, only together with another trigger, or that sends each class to a different one.",
        "Some backdoors cannot be found by any test of a model. The trigger can be a digital signature in the pixels, "
        f"which cannot be made without the key; {_signature_check(findings)}. Weights that should be random can be "
        "drawn around a secret, so that they pass every test for randomness. Only the trainer of the model can rule "
        "that out, with a seed that was fixed before (Goldwasser et al., arXiv 2204.06974).",
        "A backdoor that is inactive in all audited variants may be active in another variant.",
    ]
    if quick is not None:
        sentences.insert(
            0,
            f"This quick audit looked at {len(quick.completed)} of {quick.of} tests. Not looked at: "
            f"{left_out_in_words(quick)}. An audit without the option quick runs these too.",
        )
    for name in unexamined_outputs:
        sentences.append(f"The output {name[:100]} was not examined. The verdict does not cover a use of that output.")
    if not labelled:
        sentences.append(
            "The samples have no labels, so the accuracy was not checked. A model with low accuracy, for instance from "
            "a wrong normalization, can look backdoored."
        )
    skipped = [f"{result.name} ({result.reason})" for result in results if result.reason]
    if skipped:
        sentences.append("Not audited: " + "; ".join(skipped) + ".")
    scored = {finding.variant for finding in findings if finding.outcome is Outcome.SCORED}
    uncompared = sorted(scored - {finding.variant for finding in findings if finding.p_value is not None})
    if uncompared:
        sentences.append(
            f"Tested without a reference model on this variant, so not part of the verdict: {', '.join(uncompared)}. "
            "Fix: calibrate with clean models of your own on these variants (assay calibrate)."
        )
    tests = [
        make_test_id(f.variant, f.detector)
        for f in findings
        if f.outcome is Outcome.SCORED and f.p_value is None and f.variant not in uncompared
    ]
    if tests:
        sentences.append(
            f"Scored without a comparison with clean models, so not part of the verdict: {', '.join(tests)}. "
            "Read the evidence of these tests yourself."
        )
    if without_score := _tests_without_score(findings):
        sentences.append("Tests without a score: " + "; ".join(without_score) + ".")
    return tuple(sentences)


def _tests_without_score(findings: tuple[Finding, ...]) -> list[str]:
    """Return the tests without a score, those of one reason together, each with the reason."""
    by_reason: dict[str, list[str]] = {}
    for finding in findings:
        if not finding.outcome.completed:
            by_reason.setdefault(finding.reason, []).append(make_test_id(finding.variant, finding.detector))
    return [f"{', '.join(tests)} ({reason})" for reason, tests in by_reason.items()]


def _signature_check(findings: tuple[Finding, ...]) -> str:
    readers = {detector.name for detector in default_detectors() if detector.reads_computation}
    if any(finding.detector in readers and finding.outcome.completed for finding in findings):
        return "the audit searched the computation for a signature check, but weights could be written to do the same"
    return "the audit did not search for a signature check, because the computation was not read"
