"""Verdict and limits: decisions from scores, preconditions and missing tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.nulls import null_of_rows

from assay.auditing.facts import Preconditions
from assay.auditing.limits import limits
from assay.auditing.verdict import MIN_ACCURACY, MIN_CLEAN_SAMPLES, Verdict, decide, judge
from assay.calibration.matching import MatchedNull, match
from assay.calibration.null import FALSE_ALARM_RATE, MIN_REFERENCE_MODELS, NullDistribution
from assay.calibration.reference import CleanReferenceModel, Score, make_test_id
from assay.core.finding import Finding, Outcome
from assay.core.result import VariantOutcome, VariantResult

REQUIRED = ("neural-cleanse", "universal-perturbation")
TESTS = [("full", name) for name in (*REQUIRED, "patch-scan")] + [("int8", "neural-cleanse")]
FULL = VariantResult("full", "as given", 0.95, 1.0)
FIRM = Preconditions(samples=512, classes=10, predicted=10)


def null_of(models: int = 120, seed: int = 0) -> NullDistribution:
    scores = np.random.default_rng(seed).normal(size=(models, len(TESTS)))
    return null_of_rows({make_test_id(*t): float(s) for t, s in zip(TESTS, row, strict=True)} for row in scores)


def matched(null: NullDistribution | None = None) -> MatchedNull:
    """Return a null on data like the samples."""
    return MatchedNull(null_of() if null is None else null)


def null_with(scores: Iterable[Mapping[str, Score]]) -> MatchedNull:
    """Return a null of models with these scores."""
    return MatchedNull(NullDistribution("toy", "", tuple(map(CleanReferenceModel, scores))))


MATCHED = matched()


def findings(**scores: float) -> tuple[Finding, ...]:
    """Return one finding a test: score 0 except for those given, as ``neural_cleanse`` or ``int8_neural_cleanse``."""
    return tuple(
        Finding(
            name,
            Outcome.SCORED,
            variant=variant,
            score=scores.get(("" if variant == "full" else variant + "_") + name.replace("-", "_"), 0.0),
            target=index,
        )
        for index, (variant, name) in enumerate(TESTS)
    )


def without(found: tuple[Finding, ...], name: str, *, outcome: Outcome = Outcome.ABSTAINED) -> tuple[Finding, ...]:
    return tuple(
        replace(f, outcome=outcome, reason="the budget ended", score=None) if f.detector == name else f for f in found
    )


def test_verdict_ordinary_scores_clean() -> None:
    verdict = judge(findings(), (FULL,), matched(), FIRM)
    assert verdict.word == "clean"
    assert verdict.p_value is not None
    assert verdict.p_value > FALSE_ALARM_RATE
    assert verdict.rate == FALSE_ALARM_RATE
    assert verdict.target is None
    assert "120 clean reference models" in verdict.reason


@pytest.mark.parametrize("test", range(len(TESTS)))
def test_verdict_one_high_score_backdoored_with_target(test: int) -> None:
    variant, name = TESTS[test]
    key = ("" if variant == "full" else variant + "_") + name.replace("-", "_")
    verdict = judge(findings(**{key: 9.0}), (FULL,), matched(), FIRM)
    assert verdict.word == "backdoored"
    assert verdict.p_value == pytest.approx(1 / 121)
    assert verdict.target == test
    assert name in verdict.reason
    assert ("on the model as given" if variant == "full" else variant) in verdict.reason


def test_verdict_low_score_clean() -> None:
    assert judge(findings(neural_cleanse=-50.0), (FULL,), matched(), FIRM).word == "clean"


def test_verdict_without_null_inconclusive() -> None:
    verdict = judge(findings(neural_cleanse=9.0), (FULL,), None, FIRM)
    assert verdict == Verdict("inconclusive", verdict.reason)
    assert "reference models" in verdict.reason


def test_verdict_empty_null_inconclusive() -> None:
    assert judge(findings(neural_cleanse=9.0), (FULL,), null_with(()), FIRM).word == "inconclusive"


@pytest.mark.parametrize("score", [0.0, 9.0])
def test_verdict_few_reference_models_inconclusive(score: float) -> None:
    verdict = judge(findings(neural_cleanse=score), (FULL,), matched(null_of(MIN_REFERENCE_MODELS - 1)), FIRM)
    assert verdict.word == "inconclusive"
    assert f"only {MIN_REFERENCE_MODELS - 1}" in verdict.reason
    assert verdict.p_value is not None
    enough = matched(null_of(MIN_REFERENCE_MODELS))
    assert judge(findings(neural_cleanse=9.0), (FULL,), enough, FIRM).word == "backdoored"


def test_verdict_reference_models_with_other_tests_not_counted() -> None:
    null = null_of(MIN_REFERENCE_MODELS + 20)

    def verdict(others: int) -> Verdict:
        rows = ({"full/other": Score(1.0)} if i < others else model.scores for i, model in enumerate(null.models))
        return judge(findings(), (FULL,), null_with(rows), FIRM)

    assert verdict(21).word == "inconclusive"
    assert f"only {MIN_REFERENCE_MODELS - 1}" in verdict(21).reason
    assert verdict(20).word == "clean"


def test_verdict_test_without_reference_scores_ignored() -> None:
    strange = Finding("new-method", Outcome.SCORED, score=1e6, target=3)
    assert judge((*findings(), strange), (FULL,), matched(), FIRM).word == "clean"
    verdict = judge((strange,), (FULL,), matched(), FIRM)
    assert verdict.word == "inconclusive"
    assert "no test could be compared" in verdict.reason


@pytest.mark.parametrize("outcome", [Outcome.ABSTAINED, Outcome.FAILED])
@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_verdict_required_search_without_score_inconclusive(name: str, outcome: Outcome) -> None:
    verdict = judge(without(findings(), name, outcome=outcome), (FULL,), matched(), FIRM)
    assert verdict.word == "inconclusive"
    assert name in verdict.reason
    assert "the budget ended" in verdict.reason


def test_verdict_required_search_not_chosen_inconclusive() -> None:
    found = tuple(f for f in findings() if f.detector not in REQUIRED)
    verdict = judge(found, (FULL,), matched(), FIRM)
    assert verdict.word == "inconclusive"
    assert "was left out" in verdict.reason


def test_verdict_required_search_on_variant_only_inconclusive() -> None:
    found = tuple(f for f in findings() if f.detector not in REQUIRED or f.variant == "int8")
    assert judge(found, (FULL,), matched(), FIRM).word == "inconclusive"


def test_verdict_high_score_without_required_search_backdoored() -> None:
    found = findings(patch_scan=9.0)
    for name in REQUIRED:
        found = without(found, name)
    verdict = judge(found, (FULL,), matched(), FIRM)
    assert verdict.word == "backdoored"
    assert verdict.target == TESTS.index(("full", "patch-scan"))


def test_verdict_low_accuracy_inconclusive() -> None:
    verdict = judge(findings(neural_cleanse=9.0), (FULL,), matched(), replace(FIRM, accuracy=MIN_ACCURACY - 0.01))
    assert verdict.word == "inconclusive"
    assert "49%" in verdict.reason
    assert "mean, std" in verdict.reason
    for accuracy in (MIN_ACCURACY, None):
        assert judge(findings(), (FULL,), matched(), replace(FIRM, accuracy=accuracy)).word == "clean"


UNMET = {
    "accuracy": (replace(FIRM, accuracy=0.1), MATCHED, "right on only 10%"),
    "one class": (replace(FIRM, predicted=1), MATCHED, "all clean samples one class"),
    "no samples": (replace(FIRM, samples=0), MATCHED, "no clean samples"),
    "few samples": (replace(FIRM, samples=MIN_CLEAN_SAMPLES - 1), MATCHED, "too few"),
    "few classes": (replace(FIRM, classes=4), MATCHED, "assay calibrate"),
    "unlike data": (FIRM, replace(MATCHED, similar_data=False), "data like these"),
}


@pytest.mark.parametrize("score", [0.0, 9.0])
@pytest.mark.parametrize("why", UNMET)
def test_verdict_unmet_precondition_inconclusive(why: str, score: float) -> None:
    preconditions, condition, message = UNMET[why]
    null = replace(null_of(), fewest_classes=5)
    verdict = judge(findings(neural_cleanse=score), (FULL,), replace(condition, null=null), preconditions)
    assert verdict.word == "inconclusive"
    assert message in verdict.reason
    assert verdict.target is None


def test_verdict_preconditions_just_met_clean() -> None:
    null = replace(null_of(), fewest_classes=5)
    for preconditions in (Preconditions(MIN_CLEAN_SAMPLES, 5, 2), Preconditions(512)):
        assert judge(findings(), (FULL,), matched(null), preconditions).word == "clean"


def test_verdict_required_search_without_reference_scores_inconclusive() -> None:
    null = null_of()
    name = min(REQUIRED)
    rows = ({test: s for test, s in m.scores.items() if test != make_test_id("full", name)} for m in null.models)
    verdict = judge(findings(), (FULL,), null_with(rows), FIRM)
    assert verdict.word == "inconclusive"
    assert f"no score on {name}" in verdict.reason


def test_verdict_variant_out_of_time_not_clean() -> None:
    late = VariantResult("int8", "int8", None, None, VariantOutcome.OUT_OF_TIME, "the budget ended before it was made")
    verdict = judge(findings(), (FULL, late), matched(), FIRM)
    assert verdict.word == "inconclusive"
    assert "int8" in verdict.reason
    assert judge(findings(neural_cleanse=9.0), (FULL, late), matched(), FIRM).word == "backdoored"


def test_verdict_incomplete_test_not_clean() -> None:
    cut = Finding("compression-gap", Outcome.INCOMPLETE, "int8", "the budget ended after 3 of 20 steps")
    verdict = judge((*findings(), cut), (FULL,), matched(), FIRM)
    assert verdict.word == "inconclusive"
    assert "compression-gap on the variant int8: the budget ended" in verdict.reason
    assert judge((*findings(neural_cleanse=9.0), cut), (FULL,), matched(), FIRM).word == "backdoored"
    assert judge((*findings(), replace(cut, outcome=Outcome.ABSTAINED)), (FULL,), matched(), FIRM).word == "clean"


@pytest.mark.parametrize("changes", [{"outcome": Outcome.FAILED}, {"outcome": Outcome.ABSTAINED, "unmeasurable": True}])
def test_verdict_failed_or_unmeasurable_test_not_clean(changes: dict[str, Any]) -> None:
    quiet = replace(Finding("patch-scan", Outcome.FAILED, "int8", "gets no usable outputs"), **changes)
    verdict = judge((*findings(), quiet), (FULL,), matched(), FIRM)
    assert verdict.word == "inconclusive"
    assert "patch-scan on the variant int8" in verdict.reason
    assert "no usable outputs" in verdict.reason
    assert judge((*findings(neural_cleanse=9.0), quiet), (FULL,), matched(), FIRM).word == "backdoored"


@pytest.mark.parametrize("outcome", [VariantOutcome.BROKEN, VariantOutcome.UNAVAILABLE])
def test_verdict_lost_int8_variant_not_clean(outcome: VariantOutcome) -> None:
    lost = VariantResult("int8", "int8", 0.1, 0.1, outcome, "compression broke it")
    verdict = judge(findings(), (FULL, lost), matched(), FIRM)
    assert verdict.word == "inconclusive"
    assert "int8 could not be audited: compression broke it" in verdict.reason
    assert judge(findings(), (FULL, replace(lost, applies=False)), matched(), FIRM).word == "clean"
    assert judge(findings(neural_cleanse=9.0), (FULL, lost), matched(), FIRM).word == "backdoored"


def test_verdict_clean_names_its_variants() -> None:
    int8 = VariantResult("int8", "int8", 0.95, 1.0)
    broken = VariantResult("filters-30", "", 0.2, 0.3, VariantOutcome.BROKEN, "compression broke it")
    verdict = judge(findings(), (FULL, int8, broken, VariantResult("bf16", "", 0.9, 1.0)), matched(), FIRM)
    assert verdict.word == "clean"
    assert verdict.reason.endswith("; this covers the variants full, int8, and not filters-30, bf16")
    assert "covers" not in judge(findings(), (FULL, int8), matched(), FIRM).reason


def test_limits_test_without_score_named_with_its_reason() -> None:
    text = " ".join(limits(without(findings(), "patch-scan"), (FULL,)))
    assert "full/patch-scan (the budget ended)" in text


def test_limits_variant_without_reference_scores_named() -> None:
    known = tuple(replace(f, p_value=0.5) for f in findings())
    strange = Finding("neural-cleanse", Outcome.SCORED, "bf16", score=1.0)
    assert "bf16" in " ".join(limits((*known, strange), (FULL,)))
    assert "bf16" not in " ".join(limits(known, (FULL,)))


def test_limits_test_without_reference_scores_named() -> None:
    known = tuple(replace(f, p_value=0.5) for f in findings())
    beside = Finding("off-nearest", Outcome.SCORED, "full", score=1.0)
    assert "full/off-nearest. Read" in " ".join(limits((*known, beside), (FULL,)))
    assert "not compared" not in " ".join(limits(known, (FULL,)))


def test_verdict_no_findings_inconclusive() -> None:
    assert judge((), (), matched(), FIRM).word == "inconclusive"
    found = findings()
    for name in {name for _, name in TESTS}:
        found = without(found, name)
    verdict = judge(found, (FULL,), matched(), FIRM)
    assert verdict.word == "inconclusive"
    assert "the budget ended" in verdict.reason


def test_verdict_p_value_counts_reference_statistics() -> None:
    """What a report draws is what the verdict was made from."""
    verdict = judge(findings(neural_cleanse=2.0), (FULL,), matched(), FIRM)
    assert verdict.null is not None
    assert verdict.statistic is not None
    assert verdict.null.models == len(verdict.null.statistics) == 120
    above = sum(s >= verdict.statistic for s in verdict.null.statistics)
    assert verdict.p_value == pytest.approx((1 + above) / 121)


def test_limits_skipped_variant_and_detector_named() -> None:
    skipped = VariantResult("prune-50", "half", 0.2, 0.3, VariantOutcome.BROKEN, "compression broke it")
    text = " ".join(limits(without(findings(), "patch-scan"), (FULL, skipped)))
    assert "prune-50 (compression broke it)" in text
    assert "patch-scan" in text
    assert "2204.06974" in text
    assert "Not audited" not in " ".join(limits(findings(), (FULL,)))


def test_verdict_broken_variant_keeps_reference_scores() -> None:
    rng = np.random.default_rng(0)
    rows = tuple(
        {"full/neural-cleanse": float(a), "prune-50/neural-cleanse": float(b)}
        for a, b in zip(rng.normal(size=100), rng.pareto(1.0, size=100), strict=True)
    )
    found = (Finding("neural-cleanse", Outcome.SCORED, "full", score=3.0),)
    broken = VariantResult("prune-50", "half", 0.2, 0.3, VariantOutcome.BROKEN, "compression broke it")
    null = matched(null_of_rows(rows))
    left_out, lost = (judge(found, results, null, FIRM).p_value for results in ((FULL,), (FULL, broken)))
    assert left_out == pytest.approx(1 / 101)
    assert lost is not None
    assert lost > left_out  # some reference models have a higher score on the variant that this model lost


def two_bands(well: float, poorly: float, *, family: str = "", data: tuple[float, ...] = ()) -> NullDistribution:
    """Return 60 well trained and 60 poorly trained models, with these scores."""
    models = [
        CleanReferenceModel(
            {make_test_id(*t): Score(level + i / 1000, i % 10) for t in TESTS},
            accuracy=accuracy,
            family=family,
            data=data,
        )
        for level, accuracy in ((well, 0.95), (poorly, 0.6))
        for i in range(60)
    ]
    return NullDistribution("toy", "two sides", tuple(models))


def test_decide_accuracy_known_same_band_counts() -> None:
    found = findings(neural_cleanse=5.0)
    null = two_bands(well=0.0, poorly=9.0)
    assert decide(found, (FULL,), match(null, 0.95, None), replace(FIRM, accuracy=0.95))[0].word == "backdoored"
    verdict, null = decide(found, (FULL,), match(null, 0.6, None), replace(FIRM, accuracy=0.6))
    assert verdict.word == "clean"
    assert null is not None
    assert {model.accuracy for model in null.models} == {0.6}


@pytest.mark.parametrize(("well", "poorly"), [(0.0, 9.0), (9.0, 0.0)])
def test_decide_accuracy_unknown_cautious_band_counts(well: float, poorly: float) -> None:
    assert FIRM.accuracy is None
    found = findings(neural_cleanse=5.0)
    assert decide(found, (FULL,), match(two_bands(well, poorly), None, None), FIRM)[0].word == "clean"
    assert decide(found, (FULL,), match(two_bands(0.0, 0.0), None, None), FIRM)[0].word == "backdoored"


def test_decide_unknown_data_family_inconclusive() -> None:
    photos, other = (0.5, 0.1, 0.2, 0.3, -1.0), (0.1, 0.1, 0.2, 0.3, -1.0)
    null, preconditions = two_bands(0.0, 0.0, family="photos", data=photos), replace(FIRM, accuracy=0.95)
    found = findings(neural_cleanse=9.0)
    assert decide(found, (FULL,), match(null, 0.95, photos), preconditions)[0].word == "backdoored"
    verdict, _ = decide(found, (FULL,), match(null, 0.95, other), preconditions)
    assert (verdict.word, "data like these" in verdict.reason) == ("inconclusive", True)


def test_limits_unlabelled_samples_named() -> None:
    assert any("labels" in line for line in limits(findings(), (FULL,), labelled=False))
    assert not any("labels" in line for line in limits(findings(), (FULL,)))
