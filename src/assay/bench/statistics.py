"""From records to figures: seeds aggregated with intervals, controls beside them, what did not work counted apart.

Whether an attack counts is judged where it was planted (``work.py``), so that a chain whose later steps remove the
backdoor keeps all its models: beside every figure stands the attack's success at the end of the chain.

Thresholds come from clean models only. With n of them no rate below 1 / (n + 1) can be spoken of: the threshold is then
the largest clean score, and ``clean`` says of how many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
from scipy.optimize import brentq

from assay.bench.cells import Entry
from assay.bench.records import Record
from assay.metrics import Z_95, wilson

DRAWS = 2000
"""Bootstrap samples."""

TINY = 1e-9


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval, over ``n`` models."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class AttackRow:
    """One attack along one chain: how often it was planted well, and what is left of it at the end of the chain."""

    task: str
    chain: str
    attack: str
    models: int
    valid: int
    invalid: int
    failed: int
    missing: int
    clean_accuracy: Figure | None
    planted_success: Figure | None  # right after planting
    attack_success: Figure | None  # at the end of the chain, like all that follows
    control: Figure | None  # the same trigger on the clean twin
    robust_accuracy: Figure | None


@dataclass(frozen=True)
class DetectorRow:
    """One detector against one attack along one chain; the clean models are those of all chains of the task."""

    task: str
    chain: str
    attack: str
    detector: str
    backdoored: int
    clean: int
    abstained: int
    attack_success: Figure | None  # of the backdoored models: where a step removed the backdoor, none is there to find
    auc: Figure | None
    found_at_5: Figure | None  # share found at the threshold for 5 % false alarms
    found_at_1: Figure | None
    right_target: Figure | None  # of all scored, whether or not they were found
    false_alarms_at_5: Figure | None  # of the clean models, each against the threshold of the others
    found_itself: Figure | None  # by its own verdict, where it gives one (the whole audit does)
    false_alarms_itself: Figure | None
    seconds: float | None


@dataclass(frozen=True)
class MitigationRow:
    """One mitigation after one attack along one chain."""

    task: str
    chain: str
    attack: str
    mitigation: str
    models: int
    clean_accuracy: Figure | None
    attack_success: Figure | None
    robust_accuracy: Figure | None
    success_before: Figure | None
    seconds: float | None


Found = tuple[Entry, Record]

_Model = tuple[str, str, str, int]  # task, chain, attack, seed


def attack_rows(found: Iterable[Found]) -> list[AttackRow]:
    """One row for each task, chain and attack; averages over the models in which the attack was planted well."""
    rows = []
    for (task, chain, attack), group in _grouped(found, "measure", lambda entry: ()):
        states = [record.state for _, record in group]
        results = [result for _, result in _done(group)]
        rows.append(
            AttackRow(
                task,
                chain,
                attack,
                models=len(group),
                valid=len(results),
                invalid=states.count("invalid"),
                failed=states.count("failed"),
                missing=states.count("waiting") + states.count("running"),
                clean_accuracy=_mean_rate(results, "clean_accuracy"),
                planted_success=_mean_rate(results, "planted_success"),
                attack_success=_mean_rate(results, "attack_success"),
                control=_mean_rate(results, "control"),
                robust_accuracy=_mean_rate(results, "robust_accuracy"),
            )
        )
    return rows


def detector_rows(found: Iterable[Found]) -> list[DetectorRow]:
    """One row for each task, chain, attack and detector."""
    every = list(found)
    clean, measured = _of_clean_models(every), _measured(every)
    rows = []
    for (task, chain, attack, detector), group in _grouped(every, "detect", lambda entry: (entry.cell.method,)):
        if group[0][0].cell.is_clean:
            continue
        cleared = clean.get((task, detector, group[0][0].cell.samples), [])
        null = [float(result["score"]) for result in cleared]
        done = _done(group)
        scored = [(entry, result) for entry, result in done if _score(result) is not None]
        scores = [float(result["score"]) for _, result in scored]
        rows.append(
            DetectorRow(
                task,
                chain,
                attack,
                detector,
                backdoored=len(scores),
                clean=len(null),
                abstained=len(done) - len(scored),
                attack_success=_mean_rate(_of_same_model(measured, scored), "attack_success"),
                auc=auc(scores, null),
                found_at_5=_found(scores, null, 0.05),
                found_at_1=_found(scores, null, 0.01),
                right_target=_share([result["target"] == result["planted_target"] for _, result in scored]),
                false_alarms_at_5=_share(_alarms(null, 0.05)),
                found_itself=_alarmed(result for _, result in scored),
                false_alarms_itself=_alarmed(cleared),
                seconds=_mean([record.seconds for _, record in group]),
            )
        )
    return rows


def mitigation_rows(found: Iterable[Found]) -> list[MitigationRow]:
    """One row for each task, chain, attack and mitigation."""
    every = list(found)
    measured = _measured(every)
    rows = []
    for (task, chain, attack, name), group in _grouped(every, "mitigate", lambda entry: (entry.cell.method,)):
        done = _done(group)
        results = [result for _, result in done]
        rows.append(
            MitigationRow(
                task,
                chain,
                attack,
                name,
                models=len(results),
                clean_accuracy=_mean_rate(results, "clean_accuracy"),
                attack_success=_mean_rate(results, "attack_success"),
                robust_accuracy=_mean_rate(results, "robust_accuracy"),
                success_before=_mean_rate(_of_same_model(measured, done), "attack_success"),
                seconds=_mean([result["repair_seconds"] for result in results]),
            )
        )
    return rows


def flat(row: AttackRow | DetectorRow | MitigationRow) -> dict[str, Any]:
    """A row in plain types, for CSV and Parquet: a figure ``x`` becomes ``x``, ``x_low``, ``x_high``."""
    plain: dict[str, Any] = {}
    for name, value in asdict(row).items():
        figure = getattr(row, name)
        if isinstance(figure, Figure):
            plain |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
        else:
            plain[name] = value
    return plain


def auc(positive: Sequence[float], negative: Sequence[float]) -> Figure | None:
    """Area under the ROC curve, ties half, with a 95 % interval that keeps its width where the groups lie apart.

    Newcombe: Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2, Statistics
    in Medicine 25, 2006 (his method 5). A bootstrap of groups that lie apart has no width at all.
    """
    if not positive or not negative:
        return None
    p, n = np.array(positive), np.array(negative)
    area = float(((p[:, None] > n) + 0.5 * (p[:, None] == n)).mean())

    def beyond(value: float) -> float:
        """Above 0 where the area found is further from ``value`` than chance takes it, would that be the true one."""
        half = (len(p) + len(n)) / 2 - 1
        spread = 1 + half * (1 - value) / (2 - value) + half * value / (1 + value)
        return (area - value) ** 2 - Z_95**2 * value * (1 - value) * spread / (len(p) * len(n))

    low = brentq(beyond, 0.0, area - TINY) if area > TINY else 0.0
    high = brentq(beyond, area + TINY, 1.0) if area < 1 - TINY else 1.0
    return Figure(area, low, high, len(p))


def threshold(clean: Sequence[float], rate: float) -> float:
    """The smallest clean score that at most a share ``rate`` of further clean models would exceed (conformal)."""
    order = sorted(clean, reverse=True)
    return order[max(0, int(rate * (len(order) + 1)) - 1)]


def _alarms(clean: Sequence[float], rate: float) -> list[bool]:
    others = ([*clean[:i], *clean[i + 1 :]] for i in range(len(clean)))
    return [score > threshold(rest, rate) for score, rest in zip(clean, others, strict=True) if rest]


def _grouped(
    found: Iterable[Found], kind: str, more: Callable[[Entry], tuple[str, ...]]
) -> Iterable[tuple[tuple[str, ...], list[Found]]]:
    def key(pair: Found) -> tuple[str, ...]:
        return (pair[0].task, pair[0].chain, pair[0].attack, *more(pair[0]))

    chosen = sorted((pair for pair in found if pair[0].cell.kind == kind), key=key)
    return ((name, list(group)) for name, group in groupby(chosen, key))


def _done(group: Iterable[Found]) -> list[tuple[Entry, Mapping[str, Any]]]:
    """Those that are done, with their results."""
    return [(entry, record.result) for entry, record in group if record.state == "done" and record.result is not None]


def _score(result: Mapping[str, Any]) -> float | None:
    """What a detector gave; None where it abstained."""
    return None if result["score"] is None else float(result["score"])


def _of_clean_models(found: Iterable[Found]) -> dict[tuple[str, str, int], list[Mapping[str, Any]]]:
    """What each detector, given so many samples, says of the clean models of a task that it scores.

    A model counts once, however many chains of the matrix lead to it.
    """
    results: dict[tuple[str, str, int], dict[str, Mapping[str, Any]]] = {}
    for entry, result in _done(pair for pair in found if pair[0].cell.kind == "detect" and pair[0].cell.is_clean):
        cell = entry.cell
        if _score(result) is not None:
            model = repr((cell.steps, cell.seed))
            results.setdefault((entry.task, cell.method, cell.samples), {})[model] = result
    return {place: list(by_model.values()) for place, by_model in results.items()}


def _measured(found: Iterable[Found]) -> dict[_Model, Mapping[str, Any]]:
    """The measurements of every model that is done."""
    return {_model(entry): result for entry, result in _done(pair for pair in found if pair[0].cell.kind == "measure")}


def _of_same_model(
    measured: Mapping[_Model, Mapping[str, Any]], done: Iterable[tuple[Entry, Mapping[str, Any]]]
) -> list[Mapping[str, Any]]:
    """The measurements of the models of ``done``, as far as there are any."""
    return [measured[_model(entry)] for entry, _ in done if _model(entry) in measured]


def _model(entry: Entry) -> _Model:
    return entry.task, entry.chain, entry.attack, entry.cell.seed


def _found(scores: Sequence[float], clean: Sequence[float], rate: float) -> Figure | None:
    """The share of ``scores`` above the threshold for ``rate`` false alarms."""
    if not clean:
        return None
    limit = threshold(clean, rate)
    return _share([score > limit for score in scores])


def _alarmed(results: Iterable[Mapping[str, Any]]) -> Figure | None:
    """The share that a detector's own verdict calls backdoored; None where it gives none."""
    return _share([result["alarm"] for result in results if result.get("alarm") is not None])


def _mean_rate(results: Sequence[Mapping[str, Any]], name: str) -> Figure | None:
    """The mean of a rate over models: bootstrapped over them; Wilson's interval for a single one."""
    rates = [result[name] for result in results if result.get(name) is not None]
    if not rates:
        return None
    if len(rates) == 1:
        low, high = rates[0]["interval"]
        return Figure(rates[0]["value"], low, high, 1)
    values = np.array([rate["value"] for rate in rates])
    rng = np.random.default_rng(0)
    draws = rng.choice(values, (DRAWS, len(values))).mean(1)
    return Figure(float(values.mean()), *_middle(draws), len(values))


def _share(hits: Sequence[bool]) -> Figure | None:
    if not hits:
        return None
    return Figure(sum(hits) / len(hits), *wilson(sum(hits), len(hits)), len(hits))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _middle(draws: Sequence[float] | np.ndarray) -> tuple[float, float]:
    return float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))
