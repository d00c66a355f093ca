"""Null distributions: p-values, the combined statistic, tails and matched reference models."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.nulls import null_of_rows, scores_of

from assay.auditing.facts import Preconditions
from assay.auditing.verdict import judge
from assay.calibration.matching import MatchedNull
from assay.calibration.null import FALSE_ALARM_RATE, MIN_FAMILY_SIZE, MIN_REFERENCE_MODELS, NullDistribution, Statistic
from assay.calibration.reference import WELL_TRAINED, CleanReferenceModel, Score, make_test_id
from assay.calibration.tail import TAIL_START, Tail
from assay.core.finding import Finding, Outcome
from assay.core.result import VariantOutcome, VariantResult


def null_of(scores: np.ndarray, names: list[str] | None = None) -> NullDistribution:
    """Return a null of n models from scores (n, T)."""
    tests = names or [make_test_id("full", f"test-{i}") for i in range(scores.shape[1])]
    return null_of_rows(dict(zip(tests, map(float, row), strict=True)) for row in scores)


def test_p_value_exchangeable_models_uniform() -> None:
    generator, draws, n = np.random.default_rng(0), 4000, 99
    scores = generator.standard_t(3, size=(draws, n + 1))
    p = np.array([null_of(row[:n, None]).p_value("full/test-0", row[n]) for row in scores])
    for alpha in (0.01, 0.05, 0.2, 0.5, 0.9):  # (n + 1) alpha is whole: the rate is exactly alpha
        sigma = math.sqrt(alpha * (1 - alpha) / draws)
        assert abs((p <= alpha + 1e-9).mean() - alpha) < 3 * sigma
    assert p.mean() == pytest.approx((1 + 1 / (n + 1)) / 2, abs=0.02)


@settings(deadline=None)
@given(scores=st.lists(st.floats(-100, 100), min_size=1, max_size=30), score=st.floats(-1e6, 1e6))
def test_p_value_any_scores_within_resolution(scores: list[float], score: float) -> None:
    p = null_of(np.array(scores)[:, None]).p_value("full/test-0", score)
    assert p is not None
    assert 1 / (len(scores) + 1) <= p <= 1
    assert null_of(np.array(scores)[:, None]).p_value("full/test-0", 1e9) == 1 / (len(scores) + 1)


def test_p_value_ties_largest() -> None:
    assert null_of(np.ones((9, 1))).p_value("full/test-0", 1.0) == 1.0


def test_unknown_test_all_statistics_none() -> None:
    null = null_of(np.zeros((5, 1)))
    assert null.p_value("int8/test-0", 3.0) is None
    assert null.surprisal("int8/test-0", 3.0) is None
    assert null.statistic({"int8/test-0": Score(3.0)}) is None
    assert null.statistic({}) is None


def test_statistic_unknown_tests_ignored() -> None:
    null = null_of(np.random.default_rng(0).normal(size=(50, 2)), ["full/a", "full/b"])
    low, high = null.surprisal("full/a", 0.0), null.surprisal("full/b", 9.0)
    assert null.statistic(scores_of({"full/a": 0.0, "full/b": 9.0})) == (high, ("full/b",))
    assert null.statistic(scores_of({"full/a": 0.0})) == (low, ("full/a",))
    assert null.statistic(scores_of({"full/a": 0.0, "full/unknown": 99.0})) == (low, ("full/a",))
    alone = [null.surprisal("full/a", model.scores["full/a"].value) for model in null.models]
    assert np.allclose(null.statistics(["full/a"]), alone)


def test_statistic_same_class_adds_up() -> None:
    null = null_of(np.random.default_rng(0).normal(size=(50, 4)), [f"full/{name}" for name in "abcd"])
    values = {"full/a": 3.0, "full/b": 3.5, "full/c": -1.0, "full/d": 4.0}

    def statistic(*targets: int | None) -> Statistic:
        found = null.statistic({t: Score(v, c) for (t, v), c in zip(values.items(), targets, strict=True)})
        assert found is not None
        return found

    excess = {test: (null.surprisal(test, value) or 0.0) - TAIL_START for test, value in values.items()}
    agreeing = statistic(7, 7, 7, 7)
    assert agreeing.value == pytest.approx(TAIL_START + math.hypot(*(max(0.0, b) for b in excess.values())))
    assert set(agreeing.tests) == {"full/a", "full/b", "full/d"}  # the score of c is ordinary
    assert agreeing.tests[0] == max(excess, key=excess.__getitem__)
    assert statistic(7, 7, 7, 2).value == pytest.approx(TAIL_START + math.hypot(excess["full/a"], excess["full/b"]))
    for apart in (statistic(1, 2, 3, 4), statistic(None, None, None, None)):
        assert apart.value == pytest.approx(TAIL_START + max(excess.values()))
        assert len(apart.tests) == 1


def test_statistic_detector_on_several_variants_counts_once() -> None:
    names = ["full/a", "int8/a", "2:4/a", "full/b"]
    null = null_of(np.random.default_rng(0).normal(size=(50, 4)), names)
    values = dict(zip(names, (3.0, 3.5, 4.0, 3.0), strict=True))
    found = null.statistic({test: Score(value, 7) for test, value in values.items()})
    assert found is not None
    excess = {test: (null.surprisal(test, value) or 0.0) - TAIL_START for test, value in values.items()}
    highest = max(excess[test] for test in names[:3])
    assert found.value == pytest.approx(TAIL_START + math.hypot(highest, excess["full/b"]))
    assert set(found.tests) == set(names)  # all are evidence


def test_statistics_models_without_the_tests_left_out() -> None:
    null = null_of_rows([{"full/a": 1.0}, {"full/b": 2.0}, {"full/a": 3.0, "full/b": 4.0}])
    assert len(null.statistics(["full/a"])) == 2
    assert len(null.scores("full/b")) == 2
    assert len(null) == 3


def test_candidate_models_without_its_detectors_left_out() -> None:
    with_gap = null_of_rows({"full/a": 1.0, "int8/gap": float(i)} for i in range(3))
    without = null_of_rows({"full/a": 2.0} for _ in range(4))
    broken = null_of_rows([{"full/a": 3.0, "2:4/gap": 1.0}])  # its int8 variant was broken
    null = replace(with_gap, models=(*with_gap.models, *without.models, *broken.models))
    assert len(null.with_candidate(scores_of({"full/a": 0.0}))) == 8 + 1
    both = null.with_candidate(scores_of({"full/a": 0.0, "int8/gap": 0.0}))
    assert both.models[:-1] == (*with_gap.models, *broken.models)
    assert (null.covers("a"), null.covers("gap"), with_gap.covers("gap")) == (True, False, True)


def test_covers_detector_of_one_family_in_pool_false() -> None:
    """Otherwise a model on signs would be compared with models on photos alone."""
    photos = [CleanReferenceModel(scores_of({"full/a": 1.0, "int8/gap": float(i)}), family="photos") for i in range(60)]
    signs = [CleanReferenceModel(scores_of({"full/a": 1.0}), family="signs") for _ in range(MIN_FAMILY_SIZE)]
    pool, both = NullDistribution("n", "", (*photos, *signs)), scores_of({"full/a": 0.0, "int8/gap": 9.0})
    assert not pool.covers("gap")
    joined = pool.with_candidate(both)
    assert len(joined) == 80 + 1
    assert joined.models[-1].detectors == {"a"}
    alone = NullDistribution("n", "", tuple(photos))
    assert alone.covers("gap")
    assert alone.with_candidate(both).models[-1].detectors == {"a", "gap"}


def test_candidate_known_tests_appended() -> None:
    null = null_of(np.zeros((5, 1)))
    joined = null.with_candidate(scores_of({"full/test-0": 3.0, "int8/test-0": 4.0}))
    assert joined.models == (*null.models, CleanReferenceModel({"full/test-0": Score(3.0)}))
    assert len(null) == 5


floats = st.floats(-1e3, 1e3).map(lambda value: round(value, 3))


@settings(max_examples=200, deadline=None)
@given(null=st.lists(floats, min_size=1, max_size=40), low=floats, high=floats)
def test_tail_surprisal_monotonic(null: list[float], low: float, high: float) -> None:
    tail = Tail(np.array(null))
    below, above = sorted((low, high))
    assert 0 <= tail.surprisal(below) <= tail.surprisal(above) + 1e-12
    assert math.isfinite(tail.surprisal(above))


@settings(max_examples=50, deadline=None)
@given(null=st.lists(floats, min_size=5, max_size=40), step=st.floats(0.01, 100))
def test_tail_surprisal_beyond_all_scores_rises(null: list[float], step: float) -> None:
    tail = Tail(np.array(null))
    assert tail.surprisal(max(null) + 2 * step) > tail.surprisal(max(null) + step)


def test_tail_single_outlier_keeps_scale() -> None:
    """The tail is fitted to the audited model too."""
    clean = np.random.default_rng(0).normal(size=58)
    alone, with_it = Tail(clean).surprisal(20.0), Tail(np.append(clean, 20.0)).surprisal(20.0)
    assert with_it > 0.5 * alone


def test_tail_heavy_tail_lowers_surprisal() -> None:
    scores = np.random.default_rng(0).normal(size=58)
    top = np.argsort(scores)[-3:]
    heavy = scores.copy()
    heavy[top] = (6.0, 7.0, 9.0)
    light = scores.copy()
    light[top[-1]] = 9.0
    assert Tail(heavy).surprisal(9.0) < 0.5 * Tail(light).surprisal(9.0)
    excesses = np.random.default_rng(1).exponential(3.0, size=(200, 2000))
    scales = [Tail(sample).scale for sample in excesses]
    assert np.mean(scales) == pytest.approx(3.0, rel=0.2)


def test_tail_zero_scores_use_scale_of_other_variants() -> None:
    """Otherwise one clean model with a small score would have the largest surprisal of all."""
    other = np.random.default_rng(0).exponential(size=50)
    nothing = np.zeros(50)
    nothing[0] = 2.0
    shared = Tail(nothing, [nothing, other])
    assert shared.scale == pytest.approx(Tail(other).scale, rel=0.4)
    assert shared.surprisal(8.0) > shared.surprisal(2.0) + 3
    assert Tail(other, [nothing, other]).scale == Tail(other).scale


KINDS = ("normal", "heavy", "alike", "broken", "agreeing")
DRAWS = 700  # of each kind


@pytest.fixture(scope="module")
def false_alarms() -> dict[str, int]:
    """Return the number of false alarms in ``DRAWS`` audits of clean models, by kind."""
    return {kind: count_false_alarms(kind, np.random.default_rng((1, i))) for i, kind in enumerate(KINDS)}


def count_false_alarms(kind: str, generator: np.random.Generator) -> int:
    """14 tests on each model, the fewest clean reference models of a verdict, and one more clean model."""
    n, count = MIN_REFERENCE_MODELS, 14
    names = [f"test-{i // 2}" for i in range(count)]  # each on two variants
    alarms = 0
    for _ in range(DRAWS):
        scores = generator.standard_t(3, size=(n + 1, count)) if kind == "heavy" else None
        if scores is None:
            scores = generator.normal(size=(n + 1, count))
        if kind == "alike":
            scores = 0.7 * generator.normal(size=(n + 1, 1)) + 0.7 * scores
        broken = generator.random(n + 1) < (0.2 if kind == "broken" else 0)  # the variant, and its half of the tests
        variants = ["full", "prune-50"] * (count // 2)
        if kind == "agreeing":  # some models have one biased class: all tests name it, with higher scores
            biased = generator.random((n + 1, 1)) < 0.3
            scores = scores + 1.5 * biased
        else:
            biased = np.zeros((n + 1, 1), bool)
        classes = np.where(biased, 3, generator.integers(0, 10, (n + 1, count)))
        rows = [
            {
                make_test_id(v, t): Score(float(s), int(c))
                for v, t, s, c in zip(variants, names, row, named, strict=True)
                if v == "full" or not lost
            }
            for row, named, lost in zip(scores, classes, broken, strict=True)
        ]
        findings = tuple(
            Finding(t, Outcome.SCORED, v, score=score.value, target=score.target)
            for v, t in zip(variants, names, strict=True)
            if (score := rows[n].get(make_test_id(v, t)))
        )
        result = VariantResult(
            "prune-50", "", None, outcome=VariantOutcome.BROKEN if broken[n] else VariantOutcome.TESTED
        )
        null = NullDistribution("toys", "", tuple(map(CleanReferenceModel, rows[:n])))
        p = judge(findings, (result,), MatchedNull(null), Preconditions(512)).p_value
        assert p is not None
        alarms += p <= FALSE_ALARM_RATE
    return alarms


def assert_rate(alarms: int, draws: int) -> None:
    """Assert that the rate is within three standard errors of the stated one, which (n + 1) models reach exactly."""
    error = math.sqrt(FALSE_ALARM_RATE * (1 - FALSE_ALARM_RATE) / draws)
    assert abs(alarms / draws - FALSE_ALARM_RATE) < 3 * error, alarms / draws


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_verdict_clean_models_keep_false_alarm_rate(kind: str, false_alarms: dict[str, int]) -> None:
    assert_rate(false_alarms[kind], DRAWS)


@pytest.mark.slow
def test_verdict_all_kinds_together_keep_false_alarm_rate(false_alarms: dict[str, int]) -> None:
    """A statistic that is not the same function of every model has twice the rate here.

    One example is a statistic with tails fitted to the reference models only.
    """
    assert_rate(sum(false_alarms.values()), DRAWS * len(KINDS))


def test_compare_one_high_score_above_all_reference_models() -> None:
    null = null_of(np.random.default_rng(0).normal(size=(120, 14)))
    comparison = null.compare(scores_of(dict.fromkeys(null.models[0].scores, 0.0) | {"full/test-7": 8.0}))
    assert comparison is not None
    assert comparison.statistic > max(comparison.null_statistics)
    assert comparison.tests == ("full/test-7",)
    assert (len(comparison.null_statistics), comparison.p_value) == (120, pytest.approx(1 / 121))


def test_compare_unknown_tests_none() -> None:
    assert null_of(np.zeros((5, 1))).compare(scores_of({"int8/test-0": 9.0})) is None


def data(brightness: float, spread: float) -> tuple[float, ...]:
    return (brightness, spread, 0.2, 0.3, -1.0)


def families(count: int, name: str, profile: tuple[float, ...], accuracy: float) -> tuple[CleanReferenceModel, ...]:
    return tuple(
        CleanReferenceModel(
            {"full/a": Score(float(i))}, f"{name} {i}", accuracy, name, tuple(v + i / 1000 for v in profile)
        )
        for i in range(count)
    )


def test_matched_to_accuracy_same_band() -> None:
    accuracies = (0.9, 0.5, WELL_TRAINED, 0.79, 1.0, 0.2) * MIN_REFERENCE_MODELS
    models = tuple(
        CleanReferenceModel({"full/a": Score(float(i))}, "abcdef"[i % 6], accuracy)
        for i, accuracy in enumerate(accuracies)
    )
    null = NullDistribution("toy", "many", models, 5)
    well, poorly = null.matched_to(0.95, None), null.matched_to(0.6, None)
    assert ({m.origin for m in well.models}, {m.origin for m in poorly.models}) == (set("ace"), set("bdf"))
    assert well.fewest_classes == poorly.fewest_classes == 5
    assert f"of them the {3 * MIN_REFERENCE_MODELS} below 90% accuracy" in poorly.description
    assert null.matched_to(None, None) is null
    unknown = null_of(np.zeros((3, 1)))
    assert unknown.matched_to(0.9, PHOTOS) is unknown


PHOTOS, DIGITS = data(0.5, 0.1), data(0.1, 0.4)


def test_matched_to_data_same_family() -> None:
    photos = families(MIN_REFERENCE_MODELS, "photos", PHOTOS, 0.9)
    digits = families(MIN_REFERENCE_MODELS + 3, "digits", DIGITS, 0.9)
    few = families(MIN_REFERENCE_MODELS - 1, "scans", data(0.9, 0.9), 0.9)
    weak = families(MIN_REFERENCE_MODELS, "photos", PHOTOS, 0.6)
    null = NullDistribution("toy", "all", (*photos, *digits, *few, *weak))
    assert null.matched_to(0.95, data(0.48, 0.12)).models == photos
    assert null.matched_to(0.95, data(0.12, 0.38)).models == digits
    assert null.matched_to(0.60, data(0.48, 0.12)).models == weak
    assert null.matched_to(0.60, data(0.12, 0.38)).models == weak  # no weak digits: all weak models
    assert null.matched_to(0.95, data(0.9, 0.88)).models == (*photos, *digits, *few)  # its family is too small
    assert null.matched_to(0.95, data(7.0, 7.0)).models == (*photos, *digits, *few)  # like no family
    assert null.matched_to(None, data(0.12, 0.38)).models == digits
    assert null.matched_to(0.95, DIGITS).description == "all; of them the 52 from 90% accuracy on digits"


def test_matched_to_small_band_all_models() -> None:
    well, poorly = families(48, "mine", PHOTOS, 0.95), families(12, "mine", PHOTOS, 0.85)
    null = NullDistribution("mine", "my own models", (*well, *poorly))
    for accuracy in (0.95, 0.85, None):
        assert null.matched_to(accuracy, PHOTOS) is null
        assert null.has_matched(accuracy, PHOTOS)


def test_has_matched_small_family_false() -> None:
    photos, digits = families(60, "photos", PHOTOS, 0.9), families(MIN_FAMILY_SIZE, "digits", DIGITS, 0.9)
    null = NullDistribution("toy", "all", (*photos, *digits, *families(60, "photos", PHOTOS, 0.6)))
    assert null.has_matched(0.95, DIGITS)
    assert null.has_matched(None, DIGITS)
    assert null.has_matched(0.95, None)
    assert not null.has_matched(0.6, DIGITS)  # no digits model in that band
    assert not null.has_matched(0.95, data(7.0, 7.0))
    assert not NullDistribution("toy", "all", (*photos, *digits[1:])).has_matched(0.95, DIGITS)
    assert null_of(np.zeros((3, 1))).has_matched(0.95, DIGITS)  # the models have no data profile


def test_has_matched_part_of_one_data_set_true() -> None:
    models = [CleanReferenceModel({"full/a": Score(0.0)}, str(i), 0.95, "mine", PHOTOS) for i in range(MIN_FAMILY_SIZE)]
    null = NullDistribution("mine", "on one data set", tuple(models))
    assert null.has_matched(0.95, data(0.52, 0.11))
    assert not null.has_matched(0.95, DIGITS)
