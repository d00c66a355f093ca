from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.calibrate import FALSE_ALARM_RATE, SCHEMA, WELL_TRAINED, Null, Tail, cell, load
from assay.detectors.base import Finding
from assay.errors import UnusableInput
from assay.result import VariantResult
from assay.verdict import Footing, judge


def null_of(scores: np.ndarray, names: list[str] | None = None) -> Null:
    """From scores (n, T)."""
    tests = names or [cell("full", f"test-{i}") for i in range(scores.shape[1])]
    return Null("toy", "drawn", tuple(dict(zip(tests, map(float, row), strict=True)) for row in scores))


def test_p_values_are_uniform_where_the_model_is_like_the_others() -> None:
    generator, draws, n = np.random.default_rng(0), 4000, 99
    scores = generator.standard_t(3, size=(draws, n + 1))
    p = np.array([null_of(row[:n, None]).p_value("full/test-0", row[n]) for row in scores])
    for alpha in (0.01, 0.05, 0.2, 0.5, 0.9):  # (n + 1) alpha is whole: the rate is exactly alpha
        sigma = math.sqrt(alpha * (1 - alpha) / draws)
        assert abs((p <= alpha + 1e-9).mean() - alpha) < 3 * sigma
    assert p.mean() == pytest.approx((1 + 1 / (n + 1)) / 2, abs=0.02)


@settings(deadline=None)
@given(scores=st.lists(st.floats(-100, 100), min_size=1, max_size=30), score=st.floats(-1e6, 1e6))
def test_no_p_value_is_below_what_the_models_can_say(scores: list[float], score: float) -> None:
    p = null_of(np.array(scores)[:, None]).p_value("full/test-0", score)
    assert p is not None
    assert 1 / (len(scores) + 1) <= p <= 1
    assert null_of(np.array(scores)[:, None]).p_value("full/test-0", 1e9) == 1 / (len(scores) + 1)


def test_ties_count_against_the_alarm() -> None:
    assert null_of(np.ones((9, 1))).p_value("full/test-0", 1.0) == 1.0


def test_a_test_that_no_reference_model_has_says_nothing() -> None:
    null = null_of(np.zeros((5, 1)))
    assert null.p_value("int8/test-0", 3.0) is None
    assert null.surprise("int8/test-0", 3.0) is None
    assert null.statistic({"int8/test-0": 3.0}) is None
    assert null.statistic({}) is None


def test_the_statistic_is_over_the_tests_that_ran() -> None:
    null = null_of(np.random.default_rng(0).normal(size=(50, 2)), ["full/a", "full/b"])
    both = null.statistic({"full/a": 0.0, "full/b": 9.0})
    assert both == null.surprise("full/b", 9.0)
    assert null.statistic({"full/a": 0.0}) == null.surprise("full/a", 0.0)
    assert null.statistic({"full/a": 0.0, "full/unknown": 99.0}) == null.surprise("full/a", 0.0)
    assert np.array_equal(null.statistics(["full/a"]), [null.surprise("full/a", row["full/a"]) for row in null.rows])


def test_models_that_ran_none_of_the_tests_are_left_out() -> None:
    null = Null("toy", "", ({"full/a": 1.0}, {"full/b": 2.0}, {"full/a": 3.0, "full/b": 4.0}))
    assert len(null.statistics(["full/a"])) == 2
    assert len(null.scores("full/b")) == 2
    assert len(null) == 3


def test_joined_adds_one_model_with_the_known_tests() -> None:
    null = null_of(np.zeros((5, 1)))
    joined = null.joined({"full/test-0": 3.0, "int8/test-0": 4.0})
    assert joined.rows == (*null.rows, {"full/test-0": 3.0})
    assert len(null) == 5


floats = st.floats(-1e3, 1e3).map(lambda value: round(value, 3))


@settings(max_examples=200, deadline=None)
@given(null=st.lists(floats, min_size=1, max_size=40), low=floats, high=floats)
def test_a_higher_score_is_never_less_surprising(null: list[float], low: float, high: float) -> None:
    tail = Tail(np.array(null))
    below, above = sorted((low, high))
    assert 0 <= tail.surprise(below) <= tail.surprise(above) + 1e-12
    assert math.isfinite(tail.surprise(above))


@settings(max_examples=50, deadline=None)
@given(null=st.lists(floats, min_size=5, max_size=40), step=st.floats(0.01, 100))
def test_the_tail_goes_on_rising_beyond_all_models(null: list[float], step: float) -> None:
    tail = Tail(np.array(null))
    assert tail.surprise(max(null) + 2 * step) > tail.surprise(max(null) + step)


@pytest.mark.parametrize("kind", ["normal", "heavy", "alike", "broken"])
def test_the_whole_audit_keeps_its_false_alarm_rate(kind: str) -> None:
    """However many tests there are: 14 of them on each model, 100 clean reference models and one more clean model.

    A statistic that is not the same function of every model, such as one with tails fitted to the reference models
    only, has twice the rate here.
    """
    generator, draws, n, count = np.random.default_rng(1), 700, 100, 14
    names = [f"test-{i // 2}" for i in range(count)]  # each on two forms
    alarms = 0
    for _ in range(draws):
        scores = generator.standard_t(3, size=(n + 1, count)) if kind == "heavy" else None
        if scores is None:
            scores = generator.normal(size=(n + 1, count))
        if kind == "alike":
            scores = 0.7 * generator.normal(size=(n + 1, 1)) + 0.7 * scores
        broken = generator.random(n + 1) < (0.2 if kind == "broken" else 0)  # the form, and its half of the tests
        forms = ["full", "prune-50"] * (count // 2)
        rows = [
            {cell(v, t): float(s) for v, t, s in zip(forms, names, row, strict=True) if v == "full" or not lost}
            for row, lost in zip(scores, broken, strict=True)
        ]
        findings = tuple(
            Finding(t, "ok", v, score=rows[n][cell(v, t)])
            for v, t in zip(forms, names, strict=True)
            if cell(v, t) in rows[n]
        )
        result = VariantResult("prune-50", "", None, skipped="it broke" if broken[n] else "", broken=bool(broken[n]))
        p = judge(findings, (result,), Null("toy", "", tuple(rows[:n])), Footing(512)).p_value
        assert p is not None
        alarms += p <= FALSE_ALARM_RATE
    expected = math.floor(FALSE_ALARM_RATE * (n + 1)) / (n + 1)
    assert alarms / draws < expected + 3 * math.sqrt(expected / draws)
    assert alarms / draws > expected - 3 * math.sqrt(expected / draws)


def test_one_strange_test_among_many_is_seen() -> None:
    null = null_of(np.random.default_rng(0).normal(size=(120, 14)))
    scores = dict.fromkeys(null.rows[0], 0.0) | {"full/test-7": 8.0}
    everyone = null.joined(scores)
    *others, statistic = everyone.statistics(scores)
    assert statistic > max(others)


def test_a_saved_null_comes_back(tmp_path: Path) -> None:
    rows = ({"full/a": 1.25, "int8/a": -3.0}, {"full/a": 0.12341})
    null = Null("toy", "two models", rows, ("net one", "net two"), 7, (0.9, 0.61))
    null.save(tmp_path / "deep" / "null.json")
    back = load(tmp_path / "deep" / "null.json")
    assert (back.name, back.description, back.origins) == (null.name, null.description, null.origins)
    assert (back.fewest_classes, back.accuracies) == (7, (0.9, 0.61))
    assert back.rows == ({"full/a": 1.25, "int8/a": -3.0}, {"full/a": 0.1234})
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["null.json"]


def test_a_null_without_origins_can_be_saved(tmp_path: Path) -> None:
    null_of(np.zeros((3, 1))).save(tmp_path / "null.json")
    assert load(tmp_path / "null.json").origins == ("", "", "")


def test_a_model_is_compared_with_those_that_learned_as_well() -> None:
    rows = tuple({"full/a": float(i)} for i in range(6))
    null = Null("toy", "six", rows, tuple("abcdef"), 5, (0.9, 0.5, WELL_TRAINED, 0.79, 1.0, 0.2))
    well, badly = null.like(0.95), null.like(0.6)
    assert (well.origins, badly.origins) == (("a", "c", "e"), ("b", "d", "f"))
    assert well.rows == (rows[0], rows[2], rows[4])
    assert well.fewest_classes == badly.fewest_classes == 5
    assert "below 80%" in badly.description
    assert null.like(None) is null
    assert null_of(np.zeros((3, 1))).like(0.9).rows == null_of(np.zeros((3, 1))).rows


GOOD: dict[str, Any] = {
    "schema": SCHEMA,
    "name": "n",
    "description": "d",
    "fewest_classes": 5,
    "models": [{"origin": "o", "accuracy": None, "scores": {"full/a": 1.0}}],
}


def scored(value: str) -> str:
    return json.dumps(GOOD).replace("1.0", value)


MALFORMED = {
    "empty": "",
    "cut short": json.dumps(GOOD)[:-9],
    "no object": "[1, 2]",
    "a number": "3",
    "null": "null",
    "nothing in it": "{}",
    "another schema": json.dumps({**GOOD, "schema": "assay.null/9"}),
    "no models": json.dumps({k: v for k, v in GOOD.items() if k != "models"}),
    "models no list": json.dumps({**GOOD, "models": 3}),
    "models null": json.dumps({**GOOD, "models": None}),
    "models strings": json.dumps({**GOOD, "models": ["a"]}),
    "model without scores": json.dumps({**GOOD, "models": [{"origin": "o", "accuracy": None}]}),
    "model without origin": json.dumps({**GOOD, "models": [{"accuracy": None, "scores": {"full/a": 1.0}}]}),
    "scores a list": json.dumps({**GOOD, "models": [{"origin": "o", "accuracy": None, "scores": [1.0]}]}),
    "model without accuracy": json.dumps({**GOOD, "models": [{"origin": "o", "scores": {}}]}),
    "accuracy a word": json.dumps({**GOOD, "models": [GOOD["models"][0] | {"accuracy": "good"}]}),
    "accuracy of some": json.dumps({**GOOD, "models": [GOOD["models"][0] | {"accuracy": 0.9}, GOOD["models"][0]]}),
    "no fewest classes": json.dumps({k: v for k, v in GOOD.items() if k != "fewest_classes"}),
    "fewest classes a word": json.dumps({**GOOD, "fewest_classes": "few"}),
    "score a word": scored('"high"'),
    "score null": scored("null"),
    "score a list": scored("[1]"),
    "score true": scored("true"),
    "score NaN": scored("NaN"),
    "score infinite": scored("Infinity"),
    "score too large": scored("1e999"),
    "score far too large": scored("1" + 400 * "0"),
    "deep": 100_000 * "[",
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_null_gives_one_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "null.json"
    path.write_text(content)
    with pytest.raises(UnusableInput, match="expected a null distribution") as error:
        load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_null_of_other_bytes_gives_one_line(tmp_path: Path) -> None:
    path = tmp_path / "null.json"
    path.write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(UnusableInput, match="expected a null distribution"):
        load(path)


def test_a_null_that_is_not_there_gives_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(UnusableInput, match="cannot be read"):
            load(path)
