"""Verdict: one statistic over all tests, compared with clean reference models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from assay.auditing.facts import Preconditions
from assay.auditing.quick import left_out_in_words
from assay.calibration.matching import ComparedWith, MatchedNull
from assay.calibration.null import FALSE_ALARM_RATE, MIN_REFERENCE_MODELS, Comparison, NullDistribution
from assay.calibration.reference import Score, make_test_id
from assay.core.finding import FULL, Finding, Outcome
from assay.core.result import NullInfo, QuickScope, VariantOutcome, VariantResult
from assay.detectors import default_detectors, encoder_detectors
from assay.stages import variants

# Fewer samples inflate clean scores: by half at 12 samples and by a tenth at 25, relative to 512 (ResNet-20, scans).
MIN_CLEAN_SAMPLES = 20

# Accuracy on the clean samples. Below it, the data are not the model's, or the model is too weak for the null.
MIN_ACCURACY = 0.5


@dataclass(frozen=True)
class Verdict:
    """Verdict and the numbers behind it."""

    word: Literal["clean", "backdoored", "inconclusive"]
    reason: str  # one sentence for people
    p_value: float | None = None
    rate: float | None = None  # false-alarm rate; None if inconclusive for lack of a precondition
    statistic: float | None = None
    target: int | None = None
    strongest: str | None = None  # "variant/detector" behind a verdict "backdoored"
    null: NullInfo | None = None


def decide(
    findings: tuple[Finding, ...],
    results: tuple[VariantResult, ...],
    compared_with: ComparedWith | None,
    preconditions: Preconditions,
    quick: QuickScope | None = None,
) -> tuple[Verdict, NullDistribution | None]:
    """Return the verdict, and the reference models behind it.

    Without labels the accuracy is unknown. The model is then compared with well trained and with poorly trained
    reference models, and the more cautious verdict counts.

    Args:
        findings: Findings of all detectors on all variants.
        results: Results of all variants.
        compared_with: Matched reference models; None: there are none.
        preconditions: Preconditions of the model and the samples.
        quick: Extent of a quick audit; None: the full audit.
    """
    if compared_with is None:
        return judge(findings, results, None, preconditions, quick), None
    verdicts = [(judge(findings, results, band, preconditions, quick), band.null) for band in compared_with.bands]
    return max(verdicts, key=lambda pair: (pair[0].word == "inconclusive", pair[0].p_value or 0.0))


def judge(
    findings: tuple[Finding, ...],
    results: tuple[VariantResult, ...],
    matched: MatchedNull | None,
    preconditions: Preconditions,
    quick: QuickScope | None = None,
) -> Verdict:
    """Return the verdict against one group of reference models. A proof takes precedence over all scores.

    Args:
        findings: Findings of all detectors on all variants.
        results: Results of all variants.
        matched: Reference models to compare with; None: there are none.
        preconditions: Preconditions of the model and the samples. If one is not met, scores decide nothing.
        quick: Extent of a quick audit, whose verdict is never "clean"; None: the full audit.
    """
    by_scores = _judge_scores(findings, results, matched, preconditions, quick)
    proven = next((finding for finding in findings if finding.outcome is Outcome.PROVEN), None)
    return by_scores if proven is None else _proof_verdict(proven, by_scores.target)


def scores_of(findings: Iterable[Finding]) -> dict[str, Score]:
    """Return the scores by test, for the comparison with reference models."""
    return {
        make_test_id(f.variant, f.detector): Score(f.score, f.target)
        for f in findings
        if f.outcome is Outcome.SCORED and f.score is not None
    }


def _proof_verdict(proven: Finding, target: int | None) -> Verdict:
    """Return the verdict of a detector without reference models.

    Args:
        proven: Its finding.
        target: The class from the scores, for a proof without a class.
    """
    return Verdict(
        "backdoored",
        f"{proven.detector} found a backdoor that needs no comparison with clean models: {proven.reason}",
        target=target if proven.target is None else proven.target,
        strongest=make_test_id(proven.variant, proven.detector),
    )


def _judge_scores(
    findings: tuple[Finding, ...],
    results: tuple[VariantResult, ...],
    matched: MatchedNull | None,
    preconditions: Preconditions,
    quick: QuickScope | None,
) -> Verdict:
    if matched is None:
        return Verdict("inconclusive", "there are no clean reference models to compare with: calibrate with some")
    unmet = unmet_precondition(preconditions, matched)
    scores = scores_of(findings)
    comparison = matched.null.compare(scores, _lost_tests(findings, results))
    if comparison is None:
        reasons = [f"{f.detector} {f.reason}" for f in findings if not f.outcome.completed]
        none_compared = "no test could be compared with clean models" + (f": {reasons[0]}" if reasons else "")
        return Verdict("inconclusive", unmet or none_compared)
    models = len(comparison.null_statistics)
    info = NullInfo(
        matched.null.name, models, comparison.null_statistics, matched.null.description, matched.null.digest
    )
    verdict = Verdict("inconclusive", "", comparison.p_value, statistic=comparison.statistic, null=info)
    if unmet := unmet or _too_few_models(models):
        return replace(verdict, reason=unmet)  # without a rate: it would be the rate of a verdict that is not given
    verdict = replace(verdict, rate=FALSE_ALARM_RATE)
    if comparison.p_value <= FALSE_ALARM_RATE:
        strongest = comparison.tests[0]
        found = replace(verdict, word="backdoored", target=scores[strongest].target, strongest=strongest)
        return replace(found, reason=_found(comparison))
    if quick is not None:
        but = f", but {preconditions.trigger}" if preconditions.trigger else ""
        reason = f"nothing was found in {len(quick.completed)} of {quick.of} tests (quick audit){but}; not looked at: "
        reason += f"{left_out_in_words(quick)}; an audit without the option quick runs these too"
        return replace(verdict, reason=reason)
    if missing := missing_test(findings, results, matched.null) or preconditions.trigger:
        return replace(verdict, reason=f"nothing was found, but {missing}")
    reason = f"all tests together do not stand out from {models} clean reference models"
    return replace(verdict, word="clean", reason=reason + _scope(findings, results, matched.null))


def _lost_tests(findings: tuple[Finding, ...], results: tuple[VariantResult, ...]) -> set[str]:
    """Return the tests on broken variants.

    Reference models lose these tests by the same rule, and count with their other tests. The statistic of reference
    models that kept them must include them, or the false-alarm rate would not hold.
    """
    detectors = {finding.detector for finding in findings}
    broken = [result.name for result in results if result.outcome is VariantOutcome.BROKEN]
    return {make_test_id(name, detector) for name in broken for detector in detectors}


def unmet_precondition(preconditions: Preconditions, matched: MatchedNull) -> str:
    """Return the first unmet precondition, as words for people; empty if all are met. Then no score has a meaning.

    Args:
        preconditions: Preconditions of the model and the samples.
        matched: Reference models to compare with.
    """
    given, classes = preconditions, matched.null.fewest_classes
    if given.deployment:
        return given.deployment
    if given.accuracy is not None and given.better_normalization:
        return f"the model is right on only {given.accuracy:.0%} of the samples; {given.better_normalization}"
    if given.accuracy is not None and given.accuracy < MIN_ACCURACY:
        return (
            f"the model is right on only {given.accuracy:.0%} of the samples: "
            "check that the data, the labels and the normalization (mean, std) are the model's own"
        )
    if given.predicted == 1:
        return "the model gives all clean samples one class: check that the data and the normalization are its own"
    if given.accuracy is None and not given.normalized:
        return (
            "neither labels nor a normalization are known, so the accuracy cannot be checked: give labels, or mean and "
            "std (0 and 1 for a model that takes images in [0, 1])"
        )
    if not given.samples:
        return "there are no clean samples to test triggers on: give some"
    if given.samples < MIN_CLEAN_SAMPLES:
        return f"{given.samples} clean samples are too few: give at least {MIN_CLEAN_SAMPLES}, of all classes"
    if given.classes is not None and given.classes < classes:
        return (
            f"the model has {given.classes} classes, and the reference models at least {classes}: "
            "among few classes one always stands out; calibrate with clean models of your own (assay calibrate)"
        )
    if not matched.similar_data and given.accuracy is None:
        return (
            "without labels the accuracy is unknown, and there are too few poorly trained reference models on data "
            "like these: give labels, or calibrate with clean models of your own (assay calibrate)"
        )
    if not matched.similar_data:
        return (
            "there are too few reference models of similar accuracy on data like these, and the class bias of a clean "
            "model depends on its data: calibrate with clean models of your own (assay calibrate)"
        )
    return ""


def _scope(findings: tuple[Finding, ...], results: tuple[VariantResult, ...], null: NullDistribution) -> str:
    """Return the scope of a verdict "clean" as words to follow it: the variants with and without a compared test.

    Args:
        findings: Findings of all detectors on all variants.
        results: Results of all variants.
        null: The reference models of the comparison.
    """
    scores = scores_of(findings)
    compared = {test.partition("/")[0] for test in scores if len(null.scores(test))}
    covered = [result.name for result in results if result.name in compared]
    others = [result.name for result in results if result.name not in compared]
    if not others:
        return ""
    return f"; this covers the variants {', '.join(covered)}, and not {', '.join(others)}"


def _too_few_models(models: int) -> str:
    if models >= MIN_REFERENCE_MODELS:
        return ""
    return (
        f"only {models} clean reference models of similar accuracy ran these tests, and {MIN_REFERENCE_MODELS} are "
        "needed; calibrate with more clean models of your own (assay calibrate)"
    )


def missing_test(findings: tuple[Finding, ...], results: tuple[VariantResult, ...], null: NullDistribution) -> str:
    """Return the first missing test for a verdict "clean", as words for people; empty if none is missing.

    Args:
        findings: Findings of all detectors on all variants.
        results: Results of all variants.
        null: The reference models of the comparison.
    """
    completed = {f.detector for f in findings if f.outcome.completed and f.variant == FULL}
    detectors = encoder_detectors() if null.encoders else default_detectors()
    required = sorted(detector.name for detector in detectors if detector.required_for_clean)
    for name in required:
        if name not in completed:
            reasons = (f.reason for f in findings if f.detector == name and f.variant == FULL)
            return f"the trigger search has no result: {name} {next(reasons, 'was left out')}"
    for name in required:
        if not len(null.scores(make_test_id(FULL, name))):
            return f"the trigger search could not be compared: the reference models have no score on {name}"
    for result in results:
        if result.outcome is VariantOutcome.OUT_OF_TIME:
            return f"the budget ended before {result.name} was audited: give it more"
        if result.name in variants.EXPECTED and result.applies and result.outcome is not VariantOutcome.TESTED:
            return (
                f"the variant {result.name} could not be audited: {result.reason}. "
                "Fix: deploy the model only as given, and audit that variant alone"
            )
    for finding in findings:
        if finding.outcome is Outcome.CHECK_FAILED:
            return f"{finding.detector} could not examine the model: {finding.reason}"
    for finding in findings:
        if finding.doubt:
            return f"an answer of the model may depend on a hidden condition: {finding.doubt}"
    for finding in findings:
        if finding.outcome is Outcome.INCOMPLETE:
            return f"{finding.detector} on the variant {finding.variant}: {finding.reason}"
        if finding.outcome is Outcome.FAILED or finding.unmeasurable:
            word = "failed:" if finding.outcome is Outcome.FAILED else "has no result: it"
            return f"{finding.detector} on the variant {finding.variant} {word} {finding.reason}"
    return ""


def _found(comparison: Comparison) -> str:
    variant, _, detector = comparison.tests[0].partition("/")
    where = "on the model as given" if variant == FULL else f"on the variant {variant}"
    more = len(comparison.tests) - 1
    agree = f", and {more} more {'test names' if more == 1 else 'tests name'} the same class" if more else ""
    return (
        f"{detector} scored higher than clean reference models {where}{agree}; "
        f"a clean model would give such scores with probability {comparison.p_value:.3f} at most"
    )
