"""What the results say of a matrix: how its attacks fared along its chains, and what the whole audit says of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from statistics import mean
from typing import Any

from assay.bench.cells import MatrixEntry
from assay.bench.intervals import fraction
from assay.bench.records import Record
from assay.bench.spec import FULL_AUDIT
from lib.table_parts import grid

Found = list[tuple[MatrixEntry, Record]]


def counted(hits: int, of: int, roots: int | None = None) -> str:
    """``hits`` of ``of``, with Wilson's 95 % interval of the fraction; ``roots``: how many of them are independent."""
    figure = fraction(hits, of, roots)
    return f"{hits} of {of}" + (f" ({figure.low:.0%} to {figure.high:.0%})" if figure else "")


def matrix_table(found: Found, title: str, stages_run: tuple[int, int]) -> list[str]:
    """A summary and a row for each attack and chain, over all tasks and seeds.

    ``stages_run``: how many models there were to build, and how many stages ran for that.
    """
    audits = [pair for pair in found if pair[0].cell.kind == "detect" and pair[0].cell.method == FULL_AUDIT]
    clean = [pair for pair in audits if pair[0].cell.is_clean]
    planted = [pair for pair in audits if not pair[0].cell.is_clean]
    states = [record.state for _, record in found]
    found_well = (
        f"Found: {_alarmed(planted)} models in which the attack was planted well, "
        f"{_right(results_of(planted))} of them with the right target. "
    )
    said = (
        f"False alarms of the audit: {_alarmed(clean)} clean models. {found_well if planted else ''}Chains from one "
        "training run count once in the intervals. "
    )
    key = lambda pair: (pair[0].attack, pair[0].chain)  # noqa: E731
    rows = [_row(attack, chain, list(group)) for (attack, chain), group in groupby(sorted(found, key=key), key)]
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
        f"**{title}** {len(found):,} cells: {', '.join(_counts(states))}. {said if audits else ''}"
        f"{stages_run[0]} distinct prefixes of chains took {stages_run[1]} runs of a stage.",
        "",
        *grid(columns, rows),
        "",
    ]
    return [*lines, *_repairs_table(found), *([] if audits else _detectors_table(found))]


def _repairs_table(found: Found) -> list[str]:
    """What mitigations leave of an attack, beside what it was before; nothing where there are none."""
    repairs = _by(found, "mitigate")
    if not repairs:
        return []
    before = {key[:2]: results_of(group) for key, group in _by(found, "measure").items()}
    rows = []
    for (attack, chain, method), group in repairs.items():
        was, now = before[attack, chain], results_of(group)
        rates = [f"{mean_of(was, rate)}, {mean_of(now, rate)}" for rate in ("clean_accuracy", "attack_success")]
        rows.append([attack, chain, method, str(len(now)), *rates])
    return [*grid(["attack", "chain", "mitigation", "models", "CA before, after", "ASR before, after"], rows), ""]


def _detectors_table(found: Found) -> list[str]:
    """What single detectors say; nothing where there are none."""
    tests = _by(found, "detect")
    if not tests:
        return []
    rows = []
    for (attack, chain, method), group in tests.items():
        results = results_of(group)
        scores = ", ".join("-" if r["score"] is None else f"{r['score']:.2f}" for r in results)
        right = sum(r["target"] == r["planted_target"] for r in results)
        named = f"{right} of {len(results)}" if results and results[0]["backdoored"] else ""
        rows.append([attack, chain, method, str(len(results)), scores, named])
    return [*grid(["attack", "chain", "detector", "models", "scores", "names the target"], rows), ""]


def _by(found: Found, kind: str) -> dict[tuple[str, str, str], Found]:
    """The cells of one kind by attack, chain and method."""
    groups: dict[tuple[str, str, str], Found] = {}
    for entry, record in found:
        if entry.cell.kind == kind:
            groups.setdefault((entry.attack, entry.chain, entry.cell.method), []).append((entry, record))
    return dict(sorted(groups.items()))


def _row(attack: str, chain: str, group: Found) -> list[str]:
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
    right = "" if is_clean or not audits else str(_right(audits))
    return [attack, chain, models, *rates, mean_of(results, "control"), found, right]


def _with(inactive: str, active: str) -> str:
    """Return a figure of the given model, and of the variant with the active backdoor, if there is one."""
    return f"{inactive}, active {active}" if active else inactive


def results_of(pairs: Iterable[tuple[MatrixEntry, Record]]) -> list[dict[str, Any]]:
    """What the cells that are done say."""
    return [dict(record.result) for _, record in pairs if record.state == "done" and record.result is not None]


def _alarmed(audits: Found) -> str:
    """How many the audit calls backdoored, of those that are done."""
    done = [pair for pair in audits if pair[1].state == "done"]
    roots = {(entry.task, entry.cell.steps[0], entry.cell.seed) for entry, _ in done}
    return counted(_alarms(results_of(done)), len(done), len(roots))


def _alarms(results: list[dict[str, Any]]) -> int:
    return sum(bool(result["alarm"]) for result in results)


def _right(results: list[dict[str, Any]]) -> int:
    return sum(bool(result["alarm"]) and result["target"] == result["planted_target"] for result in results)


def mean_of(results: list[dict[str, Any]], name: str) -> str:
    """The mean over models, and from the least to the most of them: a mean of few seeds may hide one that failed."""
    values = [100 * result[name]["value"] for result in results if result.get(name) is not None]
    if not values:
        return ""
    return f"{mean(values):.1f} %" + (f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else "")


def _counts(states: list[str]) -> Iterator[str]:
    for state in dict.fromkeys(sorted(states)):
        yield f"{states.count(state):,} {'missing' if state == 'waiting' else state}"
