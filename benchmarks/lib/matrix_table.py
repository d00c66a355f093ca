"""Tables of matrices: results of the attacks along their chains, and of the audits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from statistics import mean
from typing import Any

from assay.bench.cells import MatrixEntry
from assay.bench.intervals import fraction
from assay.bench.records import Record
from assay.bench.spec import FULL_AUDIT
from lib.table_parts import grid

CellRecords = list[tuple[MatrixEntry, Record]]


def counts_with_interval(hits: int, of: int, roots: int | None = None) -> str:
    """Return ``hits`` of ``of`` with Wilson's 95 % interval of the fraction.

    ``roots`` is the number of independent training runs among them.
    """
    figure = fraction(hits, of, roots)
    return f"{hits} of {of}" + (f" ({figure.low:.0%} to {figure.high:.0%})" if figure else "")


def matrix_table(cells: CellRecords, title: str, stages_run: tuple[int, int]) -> list[str]:
    """Return a summary, and a row per attack and chain, over all tasks and seeds.

    ``stages_run`` holds the number of models to build, and of stages that ran for them.
    """
    audits = [pair for pair in cells if pair[0].cell.kind == "detect" and pair[0].cell.method == FULL_AUDIT]
    clean = [pair for pair in audits if pair[0].cell.is_clean]
    planted = [pair for pair in audits if not pair[0].cell.is_clean]
    states = [record.state for _, record in cells]
    detected = (
        f"Found: {_alarm_counts(planted)} models in which the attack was planted well, "
        f"{_right_targets(results_of(planted))} of them with the right target. "
    )
    summary = (
        f"False alarms of the audit: {_alarm_counts(clean)} clean models. {detected if planted else ''}Chains from one "
        "training run count once in the intervals. "
    )
    key = lambda pair: (pair[0].attack, pair[0].chain)  # noqa: E731
    rows = [_row(attack, chain, list(group)) for (attack, chain), group in groupby(sorted(cells, key=key), key)]
    columns = [
        "attack",
        "chain",
        "models",
        "CA",
        "of the clean control",
        "ASR",
        "control",
        "audit: found",
        "right target",
    ]
    lines = [
        f"**{title}** {len(cells):,} cells: {', '.join(_state_counts(states))}. {summary if audits else ''}"
        f"{stages_run[0]} distinct prefixes of chains took {stages_run[1]} runs of a stage.",
        "",
        *grid(columns, rows),
        "",
    ]
    return [*lines, *_mitigations_table(cells), *([] if audits else _detectors_table(cells))]


def _mitigations_table(cells: CellRecords) -> list[str]:
    """Return the rates of each attack before and after mitigations; empty without mitigations."""
    mitigations = _by(cells, "mitigate")
    if not mitigations:
        return []
    before = {key[:2]: results_of(group) for key, group in _by(cells, "measure").items()}
    rows = []
    for (attack, chain, method), group in mitigations.items():
        earlier, now = before[attack, chain], results_of(group)
        rates = [f"{mean_of(earlier, rate)}, {mean_of(now, rate)}" for rate in ("clean_accuracy", "attack_success")]
        rows.append([attack, chain, method, str(len(now)), *rates])
    return [*grid(["attack", "chain", "mitigation", "models", "CA before, after", "ASR before, after"], rows), ""]


def _detectors_table(cells: CellRecords) -> list[str]:
    """Return the scores of single detectors; empty without any."""
    tests = _by(cells, "detect")
    if not tests:
        return []
    rows = []
    for (attack, chain, method), group in tests.items():
        results = results_of(group)
        scores = ", ".join("-" if r["score"] is None else f"{r['score']:.2f}" for r in results)
        right = sum(r["target"] == r["planted_target"] for r in results)
        target_found = f"{right} of {len(results)}" if results and results[0]["backdoored"] else ""
        rows.append([attack, chain, method, str(len(results)), scores, target_found])
    return [*grid(["attack", "chain", "detector", "models", "scores", "right target"], rows), ""]


def _by(cells: CellRecords, kind: str) -> dict[tuple[str, str, str], CellRecords]:
    """Return the cells of one kind by attack, chain and method."""
    groups: dict[tuple[str, str, str], CellRecords] = {}
    for entry, record in cells:
        if entry.cell.kind == kind:
            groups.setdefault((entry.attack, entry.chain, entry.cell.method), []).append((entry, record))
    return dict(sorted(groups.items()))


def _row(attack: str, chain: str, group: CellRecords) -> list[str]:
    """Return the row of one attack and chain."""
    measured = [pair for pair in group if pair[0].cell.kind == "measure"]
    results = results_of(measured)
    audits = results_of(pair for pair in group if pair[0].cell.method == FULL_AUDIT)
    is_clean = group[0][0].cell.is_clean
    models = f"{len(results)}" + (f" of {len(measured)} valid" if len(results) < len(measured) else "")
    found = f"{_alarms(audits)} of {len(audits)}" if audits else ""
    compression_activated = [result for result in results if result.get("asleep_success") is not None]
    rates = [
        _with(mean_of(results, "clean_accuracy"), mean_of(compression_activated, "planted_accuracy")),
        "" if is_clean else mean_of(results, "control_accuracy"),
        _with(mean_of(results, "attack_success"), mean_of(compression_activated, "planted_success")),
    ]
    right = "" if is_clean or not audits else str(_right_targets(audits))
    return [attack, chain, models, *rates, mean_of(results, "control"), found, right]


def _with(inactive: str, active: str) -> str:
    """Return a figure of the given model, and of the variant with the active backdoor, if there is one."""
    return f"{inactive}, active {active}" if active else inactive


def results_of(pairs: Iterable[tuple[MatrixEntry, Record]]) -> list[dict[str, Any]]:
    """Return the results of completed cells."""
    return [dict(record.result) for _, record in pairs if record.state == "done" and record.result is not None]


def _alarm_counts(audits: CellRecords) -> str:
    """Return the number of alarms among completed audits."""
    done = [pair for pair in audits if pair[1].state == "done"]
    roots = {(entry.task, entry.cell.steps[0], entry.cell.seed) for entry, _ in done}
    return counts_with_interval(_alarms(results_of(done)), len(done), len(roots))


def _alarms(results: list[dict[str, Any]]) -> int:
    """Return the number of alarms."""
    return sum(bool(result["alarm"]) for result in results)


def _right_targets(results: list[dict[str, Any]]) -> int:
    """Return the number of alarms with the planted target."""
    return sum(bool(result["alarm"]) and result["target"] == result["planted_target"] for result in results)


def mean_of(results: list[dict[str, Any]], name: str) -> str:
    """Return the mean over models with minimum and maximum, because a mean of few seeds may hide a failed one."""
    values = [100 * result[name]["value"] for result in results if result.get(name) is not None]
    if not values:
        return ""
    return f"{mean(values):.1f} %" + (f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else "")


def _state_counts(states: Sequence[str]) -> Iterator[str]:
    """Yield the number of cells in each state."""
    for state in dict.fromkeys(sorted(states)):
        yield f"{states.count(state):,} {'missing' if state == 'waiting' else state}"
