from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.nulls import null_of_rows

from assay.auditing.verdict import FEWEST_SAMPLES, LOWEST_ACCURACY, SEARCHES, Footing, Verdict, decide, judge, limits
from assay.calibration.null import FALSE_ALARM_RATE, MIN_REFERENCE_MODELS, NullDistribution
from assay.calibration.reference import CleanReferenceModel, Score, make_test_id
from assay.core.finding import Finding, Outcome
from assay.core.result import VariantOutcome, VariantResult

TESTS = [("full", name) for name in (*sorted(SEARCHES), "patch-scan")] + [("int8", "neural-cleanse")]
FULL = VariantResult("full", "as given", 0.95, 1.0)
FIRM = Footing(samples=512, classes=10, predicted=10)


def null_of(models: int = 120, seed: int = 0) -> NullDistribution:
    scores = np.random.default_rng(seed).normal(size=(models, len(TESTS)))
    return null_of_rows({make_test_id(*t): float(s) for t, s in zip(TESTS, row, strict=True)} for row in scores)


def findings(**scores: float) -> tuple[Finding, ...]:
    """One finding a test, all ordinary but for those said, as ``neural_cleanse`` or ``int8_neural_cleanse``."""
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


def test_nothing_special_is_clean() -> None:
    verdict = judge(findings(), (FULL,), null_of(), FIRM)
    assert verdict.word == "clean"
    assert verdict.p_value is not None
    assert verdict.p_value > FALSE_ALARM_RATE
    assert verdict.rate == FALSE_ALARM_RATE
    assert verdict.target is None
    assert "120 clean reference models" in verdict.reason


@pytest.mark.parametrize("test", range(len(TESTS)))
def test_one_strange_test_is_a_backdoor_with_its_target(test: int) -> None:
    variant, name = TESTS[test]
    key = ("" if variant == "full" else variant + "_") + name.replace("-", "_")
    verdict = judge(findings(**{key: 9.0}), (FULL,), null_of(), FIRM)
    assert verdict.word == "backdoored"
    assert verdict.p_value == pytest.approx(1 / 121)
    assert verdict.target == test
    assert name in verdict.reason
    assert ("as given" if variant == "full" else variant) in verdict.reason


def test_a_low_score_is_no_alarm() -> None:
    assert judge(findings(neural_cleanse=-50.0), (FULL,), null_of(), FIRM).word == "clean"


def test_without_a_null_nothing_can_be_said() -> None:
    verdict = judge(findings(neural_cleanse=9.0), (FULL,), None, FIRM)
    assert verdict == Verdict("inconclusive", verdict.reason)
    assert "reference models" in verdict.reason


def test_an_empty_null_says_nothing() -> None:
    assert judge(findings(neural_cleanse=9.0), (FULL,), NullDistribution("none", "", ()), FIRM).word == "inconclusive"


@pytest.mark.parametrize("score", [0.0, 9.0])
def test_too_few_models_say_nothing(score: float) -> None:
    verdict = judge(findings(neural_cleanse=score), (FULL,), null_of(MIN_REFERENCE_MODELS - 1), FIRM)
    assert verdict.word == "inconclusive"
    assert f"only {MIN_REFERENCE_MODELS - 1}" in verdict.reason
    assert verdict.p_value is not None
    assert judge(findings(neural_cleanse=9.0), (FULL,), null_of(MIN_REFERENCE_MODELS), FIRM).word == "backdoored"


def test_models_that_ran_other_tests_do_not_count() -> None:
    null = null_of(MIN_REFERENCE_MODELS + 20)

    def verdict(others: int) -> Verdict:
        rows = ({"full/other": Score(1.0)} if i < others else model.scores for i, model in enumerate(null.models))
        return judge(findings(), (FULL,), NullDistribution("toy", "", tuple(map(CleanReferenceModel, rows))), FIRM)

    assert verdict(21).word == "inconclusive"
    assert f"only {MIN_REFERENCE_MODELS - 1}" in verdict(21).reason
    assert verdict(20).word == "clean"


def test_tests_that_the_null_does_not_know_are_left_out() -> None:
    strange = Finding("new-method", Outcome.SCORED, score=1e6, target=3)
    assert judge((*findings(), strange), (FULL,), null_of(), FIRM).word == "clean"
    verdict = judge((strange,), (FULL,), null_of(), FIRM)
    assert verdict.word == "inconclusive"
    assert "no test could be compared" in verdict.reason


@pytest.mark.parametrize("outcome", [Outcome.ABSTAINED, Outcome.FAILED])
@pytest.mark.parametrize("name", sorted(SEARCHES))
def test_clean_without_the_search_is_inconclusive(name: str, outcome: Outcome) -> None:
    verdict = judge(without(findings(), name, outcome=outcome), (FULL,), null_of(), FIRM)
    assert verdict.word == "inconclusive"
    assert name in verdict.reason
    assert "the budget ended" in verdict.reason


def test_a_search_that_was_not_asked_for_is_missed() -> None:
    found = tuple(f for f in findings() if f.detector not in SEARCHES)
    verdict = judge(found, (FULL,), null_of(), FIRM)
    assert verdict.word == "inconclusive"
    assert "was left out" in verdict.reason


def test_the_search_on_a_variant_only_is_not_enough() -> None:
    found = tuple(f for f in findings() if f.detector not in SEARCHES or f.variant == "int8")
    assert judge(found, (FULL,), null_of(), FIRM).word == "inconclusive"


def test_a_backdoor_is_said_even_where_the_search_did_not_run() -> None:
    found = findings(patch_scan=9.0)
    for name in SEARCHES:
        found = without(found, name)
    verdict = judge(found, (FULL,), null_of(), FIRM)
    assert verdict.word == "backdoored"
    assert verdict.target == TESTS.index(("full", "patch-scan"))


def test_weak_data_cannot_clear_a_model() -> None:
    verdict = judge(findings(neural_cleanse=9.0), (FULL,), null_of(), replace(FIRM, accuracy=LOWEST_ACCURACY - 0.01))
    assert verdict.word == "inconclusive"
    assert "49%" in verdict.reason
    assert "--mean" in verdict.reason
    for accuracy in (LOWEST_ACCURACY, None):
        assert judge(findings(), (FULL,), null_of(), replace(FIRM, accuracy=accuracy)).word == "clean"


UNSOUND = {
    "accuracy": (replace(FIRM, accuracy=0.1), "right on only 10%"),
    "one class": (replace(FIRM, predicted=1), "all clean samples one class"),
    "no samples": (replace(FIRM, samples=0), "--data"),
    "few samples": (replace(FIRM, samples=FEWEST_SAMPLES - 1), "too few"),
    "few classes": (replace(FIRM, classes=4), "assay calibrate"),
    "unlike data": (replace(FIRM, alike=False), "data like these"),
}


@pytest.mark.parametrize("score", [0.0, 9.0])
@pytest.mark.parametrize("why", UNSOUND)
def test_on_an_unsound_footing_nothing_is_said_either_way(why: str, score: float) -> None:
    footing, said = UNSOUND[why]
    null = replace(null_of(), fewest_classes=5)
    verdict = judge(findings(neural_cleanse=score), (FULL,), null, footing)
    assert verdict.word == "inconclusive"
    assert said in verdict.reason
    assert verdict.target is None


def test_the_edge_of_a_sound_footing() -> None:
    null = replace(null_of(), fewest_classes=5)
    for footing in (Footing(FEWEST_SAMPLES, 5, 2), Footing(512)):
        assert judge(findings(), (FULL,), null, footing).word == "clean"


def test_clean_without_a_reference_for_the_search_is_inconclusive() -> None:
    null = null_of()
    name = min(SEARCHES)
    rows = ({test: s for test, s in m.scores.items() if test != make_test_id("full", name)} for m in null.models)
    verdict = judge(findings(), (FULL,), NullDistribution("toy", "", tuple(map(CleanReferenceModel, rows))), FIRM)
    assert verdict.word == "inconclusive"
    assert f"no score on {name}" in verdict.reason


def test_a_form_that_came_too_late_is_no_pass() -> None:
    late = VariantResult("int8", "int8", None, None, VariantOutcome.OUT_OF_TIME, "the budget ended before it was made")
    verdict = judge(findings(), (FULL, late), null_of(), FIRM)
    assert verdict.word == "inconclusive"
    assert "int8" in verdict.reason
    assert judge(findings(neural_cleanse=9.0), (FULL, late), null_of(), FIRM).word == "backdoored"


def test_a_test_that_broke_off_is_no_pass_in_whatever_form() -> None:
    cut = Finding("compression-gap", Outcome.INCOMPLETE, "int8", "the budget ended after 3 of 20 steps")
    verdict = judge((*findings(), cut), (FULL,), null_of(), FIRM)
    assert verdict.word == "inconclusive"
    assert "compression-gap in the form int8: the budget ended" in verdict.reason
    assert judge((*findings(neural_cleanse=9.0), cut), (FULL,), null_of(), FIRM).word == "backdoored"
    assert judge((*findings(), replace(cut, outcome=Outcome.ABSTAINED)), (FULL,), null_of(), FIRM).word == "clean"


def test_limits_name_the_forms_that_could_not_be_compared() -> None:
    known = tuple(replace(f, p_value=0.5) for f in findings())
    strange = Finding("neural-cleanse", Outcome.SCORED, "bf16", score=1.0)
    assert "bf16" in " ".join(limits((*known, strange), (FULL,)))
    assert "bf16" not in " ".join(limits(known, (FULL,)))


def test_limits_name_the_tests_that_could_not_be_compared() -> None:
    known = tuple(replace(f, p_value=0.5) for f in findings())
    beside = Finding("off-nearest", Outcome.SCORED, "full", score=1.0)
    assert "full/off-nearest. Read" in " ".join(limits((*known, beside), (FULL,)))
    assert "not compared" not in " ".join(limits(known, (FULL,)))


def test_nothing_at_all_is_inconclusive() -> None:
    assert judge((), (), null_of(), FIRM).word == "inconclusive"
    found = findings()
    for name in {name for _, name in TESTS}:
        found = without(found, name)
    verdict = judge(found, (FULL,), null_of(), FIRM)
    assert verdict.word == "inconclusive"
    assert "the budget ended" in verdict.reason


def test_the_p_value_is_the_pictures_one() -> None:
    """What a report draws is what the verdict was made from."""
    verdict = judge(findings(neural_cleanse=2.0), (FULL,), null_of(), FIRM)
    assert verdict.null is not None
    assert verdict.statistic is not None
    assert verdict.null.models == len(verdict.null.statistics) == 120
    above = sum(s >= verdict.statistic for s in verdict.null.statistics)
    assert verdict.p_value == pytest.approx((1 + above) / 121)


def test_limits_say_what_was_not_done() -> None:
    skipped = VariantResult("prune-50", "half", 0.2, 0.3, VariantOutcome.BROKEN, "compression broke it")
    said = " ".join(limits(without(findings(), "patch-scan"), (FULL, skipped)))
    assert "prune-50 (compression broke it)" in said
    assert "patch-scan" in said
    assert "2204.06974" in said
    assert "Not audited" not in " ".join(limits(findings(), (FULL,)))


def test_a_form_that_broke_takes_nothing_from_the_reference_models() -> None:
    rng = np.random.default_rng(0)
    rows = tuple(
        {"full/neural-cleanse": float(a), "prune-50/neural-cleanse": float(b)}
        for a, b in zip(rng.normal(size=100), rng.pareto(1.0, size=100), strict=True)
    )
    found = (Finding("neural-cleanse", Outcome.SCORED, "full", score=3.0),)
    broken = VariantResult("prune-50", "half", 0.2, 0.3, VariantOutcome.BROKEN, "compression broke it")
    left_out, lost = (judge(found, forms, null_of_rows(rows), FIRM).p_value for forms in ((FULL,), (FULL, broken)))
    assert left_out == pytest.approx(1 / 101)
    assert lost is not None
    assert lost > left_out  # some reference models stand out further, in the form that this one lost


def sided(well: float, badly: float, *, family: str = "", data: tuple[float, ...] = ()) -> NullDistribution:
    """60 models that learned their task, and 60 that did so badly, all of which score as said."""
    models = [
        CleanReferenceModel(
            {make_test_id(*t): Score(level + i / 1000, i % 10) for t in TESTS}, accuracy=accuracy, family=family, data=data
        )
        for level, accuracy in ((well, 0.95), (badly, 0.6))
        for i in range(60)
    ]
    return NullDistribution("toy", "two sides", tuple(models))


def test_a_model_is_judged_by_those_that_learned_as_well() -> None:
    found = findings(neural_cleanse=5.0)
    null = sided(well=0.0, badly=9.0)
    assert decide(found, (FULL,), null, replace(FIRM, accuracy=0.95), None)[0].word == "backdoored"
    verdict, alike = decide(found, (FULL,), null, replace(FIRM, accuracy=0.6), None)
    assert verdict.word == "clean"
    assert alike is not None
    assert {model.accuracy for model in alike.models} == {0.6}


@pytest.mark.parametrize(("well", "badly"), [(0.0, 9.0), (9.0, 0.0)])
def test_without_labels_the_more_cautious_side_counts(well: float, badly: float) -> None:
    assert FIRM.accuracy is None
    assert decide(findings(neural_cleanse=5.0), (FULL,), sided(well, badly), FIRM, None)[0].word == "clean"
    assert decide(findings(neural_cleanse=5.0), (FULL,), sided(0.0, 0.0), FIRM, None)[0].word == "backdoored"


def test_on_data_that_too_few_models_know_nothing_is_said() -> None:
    null = sided(0.0, 0.0, family="photos", data=(0.5, 0.1, 0.2, 0.3, -1.0))
    footing = replace(FIRM, accuracy=0.95)
    assert (
        decide(findings(neural_cleanse=9.0), (FULL,), null, footing, (0.5, 0.1, 0.2, 0.3, -1.0))[0].word == "backdoored"
    )
    verdict, _ = decide(findings(neural_cleanse=9.0), (FULL,), null, footing, (0.1, 0.1, 0.2, 0.3, -1.0))
    assert (verdict.word, "data like these" in verdict.reason) == ("inconclusive", True)


def test_samples_without_labels_are_a_limit() -> None:
    assert any("labels" in line for line in limits(findings(), (FULL,), labelled=False))
    assert not any("labels" in line for line in limits(findings(), (FULL,)))
