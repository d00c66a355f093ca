"""Table rows from records: intervals, thresholds from clean models only, and averages over valid attacks only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bench_specs import SMALL, rate, result_of

from assay.bench.cells import MatrixEntry, entries
from assay.bench.intervals import auc, threshold
from assay.bench.records import Record, State
from assay.bench.spec_reader import parse
from assay.bench.statistics import attack_rows, detector_rows, flat, mitigation_rows

ENTRIES = list(entries(parse(SMALL | {"seeds": [0, 1, 2, 3]})))


def found(**states: State) -> list[tuple[MatrixEntry, Record]]:
    """Return all entries with finished records, except for given states, as in ``seed_1="invalid"``."""
    pairs = []
    for entry in ENTRIES:
        state = states.get(f"seed_{entry.cell.seed}", "done") if entry.attack != "none" else "done"
        result = result_of(entry) if state == "done" else None
        pairs.append((entry, Record(entry.cell.key, entry.cell.kind, {}, state, result, seconds=1.0)))
    return pairs


def test_seeds_are_averaged_with_interval() -> None:
    row = next(row for row in attack_rows(found()) if (row.attack, row.chain) == ("corner", "scratch"))
    assert row.attack_success is not None
    assert row.attack_success.value == pytest.approx(0.875)
    assert 0.77 < row.attack_success.low < 0.8  # Student's: 0.875 - 3.18 * 0.0645 / 2
    assert 0.95 < row.attack_success.high < 0.98
    assert row.attack_success.n == row.models == row.valid == 4
    assert row.control is not None
    assert row.control.value == pytest.approx(0.01)


def test_failed_and_invalid_models_are_counted_but_not_averaged() -> None:
    rows = attack_rows(found(seed_0="invalid", seed_1="failed", seed_2="waiting"))
    row = next(row for row in rows if (row.attack, row.chain) == ("corner", "scratch"))
    assert (row.models, row.valid, row.invalid, row.failed, row.missing) == (4, 1, 1, 1, 1)
    assert row.attack_success is not None
    assert (row.attack_success.value, row.attack_success.low) == (pytest.approx(0.95), pytest.approx(0.85))


def test_detector_row_compares_with_clean_models() -> None:
    rows = {(row.detector, row.chain): row for row in detector_rows(found()) if row.attack == "corner"}
    scan, chance = rows["patch-scan", "scratch"], rows["random-score", "scratch"]
    assert scan.auc is not None
    assert chance.auc is not None
    assert scan.auc.value == 1.0
    assert chance.auc.value == pytest.approx(0.5)
    assert (scan.clean, scan.clean_roots) == (8, 8)  # the chains start with different training runs
    assert scan.found_above_clean is not None
    assert scan.found_above_clean.value == 1.0
    assert chance.found_above_clean is not None
    assert chance.found_above_clean.value == 0.0
    assert (scan.found_at_5, scan.found_at_1) == (None, None)  # eight clean models cannot resolve 5 %
    assert scan.right_target is not None
    assert scan.right_target.value == 0.75
    assert not [row for row in detector_rows(found()) if row.attack == "none"]
    assert (scan.found_itself, scan.false_alarms_itself) == (None, None)  # no verdict, only a score


def test_detector_with_verdict_has_error_rates() -> None:
    pairs = []
    for entry, record in found():
        if entry.cell.method == "patch-scan" and record.result is not None:
            alarm = entry.attack == "corner" or entry.cell.seed == 0
            record = replace(record, result={**record.result, "alarm": alarm})
        pairs.append((entry, record))
    row = next(row for row in detector_rows(pairs) if (row.detector, row.chain) == ("patch-scan", "scratch"))
    assert row.found_itself is not None
    assert row.false_alarms_itself is not None
    assert (row.found_itself.value, row.false_alarms_itself.value) == (1.0, 0.25)


def test_mitigation_row_has_success_before() -> None:
    row = next(row for row in mitigation_rows(found()) if row.attack == "corner")
    assert (row.mitigation, row.models, row.seconds) == ("tuned", 4, 2.0)
    assert row.success_before is not None
    assert row.success_before.value == pytest.approx(0.875)


def test_mitigation_row_without_earlier_measurement() -> None:
    pairs = [pair for pair in found() if pair[0].cell.kind != "measure"]
    row = next(row for row in mitigation_rows(pairs) if row.attack == "corner")
    assert row.attack_success is not None
    assert row.success_before is None


def test_detector_row_has_attack_success_at_end_of_chain() -> None:
    row = next(row for row in detector_rows(found()) if row.attack == "corner")
    assert row.attack_success is not None
    assert row.attack_success.value == pytest.approx(0.875)


def test_clean_model_of_two_chains_counts_once() -> None:
    spec = parse(
        {
            **SMALL,
            "attacks": {"clean": "none", "none": {"badnets": {}}},
            "chains": {"scratch": ["attack"], "again": ["attack"]},
        }
    )
    pairs = [(entry, Record(entry.cell.key, entry.cell.kind, {}, "done", result_of(entry))) for entry in entries(spec)]
    rows = [row for row in detector_rows(pairs) if row.detector == "patch-scan"]
    assert {(row.attack, row.chain, row.clean) for row in rows} == {("none", "scratch", 2), ("none", "again", 2)}


def test_clean_models_of_one_training_run_count_as_one_root() -> None:
    recipes = {"none": "none", "longer": {"none": {"recipe": {"epochs": 20}}}, "corner": {"badnets": {}}}
    chains = {"scratch": ["attack"], "pruned": ["attack", {"prune-magnitude": {"rate": 0.5}}]}
    spec = parse({**SMALL, "attacks": recipes, "chains": chains})
    pairs = [(entry, Record(entry.cell.key, entry.cell.kind, {}, "done", result_of(entry))) for entry in entries(spec)]
    row = next(row for row in detector_rows(pairs) if row.detector == "patch-scan")
    assert (row.clean, row.clean_roots) == (8, 4)  # two recipes, two chains, two seeds


def test_flat_row_has_columns_for_interval_ends() -> None:
    plain = flat(attack_rows(found())[0])
    assert {"attack_success", "attack_success_low", "attack_success_high", "task"} <= plain.keys()
    assert all(value is None or isinstance(value, str | int | float) for value in plain.values())


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60), st.sampled_from([0.01, 0.05, 0.2]))
def test_threshold_keeps_its_false_alarm_rate(clean: list[float], allowed: float) -> None:
    limit = threshold(clean, allowed)
    if limit is None:
        assert allowed * (len(clean) + 1) < 1
    else:
        assert sum(score > limit for score in clean) <= allowed * (len(clean) + 1) - 1 + 1e-9


def test_threshold_needs_enough_clean_models() -> None:
    assert threshold([1.0] * 18, 0.05) is None
    assert threshold([*range(19)], 0.05) == 18
    assert threshold([*range(98)], 0.01) is None
    assert threshold([*range(99)], 0.01) == 98
    assert threshold([*range(39)], 0.05) == 37


def detections(scores: dict[int, float | None], clean: int) -> list[tuple[MatrixEntry, Record]]:
    """Return one chain: backdoored models with ``scores`` by seed, and ``clean`` models with scores 0, 1, 2, ..."""
    document = {**SMALL, "seeds": list(range(max(clean, len(scores)))), "chains": {"scratch": ["attack"]}}
    pairs = []
    for entry in entries(parse(document)):
        if entry.cell.method != "patch-scan":
            continue
        seed = entry.cell.seed
        score = (float(seed) if seed < clean else None) if entry.cell.is_clean else scores.get(seed)
        result = {"score": score, "target": None if score is None else 0, "planted_target": 0, "status": "ok"}
        pairs.append((entry, Record(entry.cell.key, "detect", {}, "done", result)))
    return pairs


def test_found_at_rate_counts_scores_above_threshold_and_no_abstentions() -> None:
    (row,) = detector_rows(detections({0: 30.0, 1: 18.5, 2: 17.5, 3: None}, clean=19))
    assert row.found_at_5 is not None
    assert row.found_at_5.n == 19  # every seed has a model; models without a score count as not found
    assert row.found_at_5.value == pytest.approx(2 / 19)
    assert row.found_at_1 is None
    assert (row.backdoored, row.abstained) == (3, 16)
    assert row.right_target is not None
    assert row.right_target.value == pytest.approx(3 / 19)


def test_the_interval_of_a_mean_over_few_models_holds_what_it_promises() -> None:
    chance, held = np.random.default_rng(2), 0
    for _ in range(300):
        values = chance.normal(0.6, 0.1, 3)
        pairs = []
        for entry, record in found():
            if entry.cell.kind == "measure" and entry.cell.seed < 3 and record.result is not None:
                exact = {"value": values[entry.cell.seed], "interval": [values[entry.cell.seed]] * 2, "samples": 10**6}
                record = replace(record, result={**record.result, "clean_accuracy": exact})
                pairs.append((entry, record))
        figure = attack_rows(pairs)[0].clean_accuracy
        assert figure is not None
        held += figure.low <= 0.6 <= figure.high
    assert 0.91 <= held / 300 <= 0.99


def test_models_that_are_all_alike_leave_the_uncertainty_of_their_samples() -> None:
    pairs = []
    for entry, record in found():
        if record.result is not None and entry.cell.kind == "measure":
            record = replace(record, result={**record.result, "clean_accuracy": rate(0.9)})
        pairs.append((entry, record))
    figure = attack_rows(pairs)[0].clean_accuracy
    assert figure is not None
    assert figure.high - figure.low == pytest.approx(0.1)  # half of that of one model, for four of them


def test_auc_interval_keeps_width_without_overlap() -> None:
    apart = auc([9.0] * 12, [1.0] * 13)
    more = auc([9.0] * 120, [1.0] * 130)
    assert apart is not None
    assert more is not None
    assert (apart.value, apart.high, more.high) == (1.0, 1.0, 1.0)
    assert 0.75 < apart.low < 0.9 < more.low < 0.99
    mirrored = auc([1.0] * 12, [9.0] * 13)
    assert mirrored is not None
    assert (mirrored.low, mirrored.high) == pytest.approx((0.0, 1 - apart.low), abs=1e-6)


def test_auc_interval_covers_true_value() -> None:
    chance, held = np.random.default_rng(1), 0
    true = 0.9213504  # of unit normals with means two apart: Phi(sqrt(2))
    for _ in range(300):
        figure = auc(list(chance.normal(2, 1, 15)), list(chance.normal(0, 1, 20)))
        assert figure is not None
        held += figure.low <= true <= figure.high
    assert 0.92 <= held / 300 <= 1.0


def test_auc_is_mean_over_all_pairs() -> None:
    p, n = [3.0, 1.0, 2.0], [1.0, 0.0]
    figure = auc(p, n)
    assert figure is not None
    assert figure.value == pytest.approx(np.mean([(a > b) + 0.5 * (a == b) for a in p for b in n]))
    assert figure.low <= figure.value <= figure.high
    assert auc([], n) is None
