"""From records to figures: seeds aggregated with intervals, controls beside them, what did not work counted apart.

Whether an attack counts is judged where it was planted (``work.py``), so that a chain whose later steps remove the
backdoor keeps all its models: beside every figure stands the attack's success at the end of the chain.

Thresholds come from clean models only. With n of them no rate below 1 / (n + 1) can be spoken of: a figure for such a
rate is left empty, and the share above all clean scores stands beside it.

What has one training run in common (the clean models of a seed along several chains) is not independent: intervals
count it once, as one of ``roots``. A detector that abstains has not found anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import t as student

from assay.bench.cells import Entry
from assay.bench.records import Record
from assay.bench.spec import Method
from assay.nn.metrics import Z_95, wilson

TINY = 1e-9


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval, over ``n`` models (those of one training run count once)."""

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
    clean_roots: int  # training runs that the clean models come from
    abstained: int
    attack_success: Figure | None  # of the backdoored models: where a step removed the backdoor, none is there to find
    auc: Figure | None
    found_above_clean: Figure | None  # share with a score above that of every clean model
    found_at_5: Figure | None  # share found at the threshold for 5 % false alarms; takes 19 clean models
    found_at_1: Figure | None  # takes 99
    right_target: Figure | None  # whether or not they were found
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
_Clean = tuple[tuple[Method, ...], int]  # steps, the first of which trains; seed


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
        cleared = clean.get((task, detector, group[0][0].cell.samples), {})
        null = [float(result["score"]) for result in cleared.values()]
        roots = len({(steps[0], seed) for steps, seed in cleared})
        done = _done(group)
        scored = [(entry, result) for entry, result in done if _score(result) is not None]
        scores = [float(result["score"]) for _, result in scored]
        tested = [result for _, result in done]
        rows.append(
            DetectorRow(
                task,
                chain,
                attack,
                detector,
                backdoored=len(scores),
                clean=len(null),
                clean_roots=roots,
                abstained=len(done) - len(scored),
                attack_success=_mean_rate(_of_same_model(measured, scored), "attack_success"),
                auc=auc(scores, null, roots=roots),
                found_above_clean=_found(tested, max(null, default=None)),
                found_at_5=_found(tested, threshold(null, 0.05)),
                found_at_1=_found(tested, threshold(null, 0.01)),
                right_target=_share([_names_target(result) for result in tested]),
                found_itself=_alarmed(tested),
                false_alarms_itself=_alarmed(list(cleared.values()), roots),
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


def auc(positive: Sequence[float], negative: Sequence[float], *, roots: int | None = None) -> Figure | None:
    """Area under the ROC curve, ties half, with a 95 % interval that keeps its width where the groups lie apart.

    ``roots``: how many of ``negative`` count as independent; all where not given.

    Newcombe: Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2, Statistics
    in Medicine 25, 2006 (his method 5). A bootstrap of groups that lie apart has no width at all.
    """
    if not positive or not negative:
        return None
    p, n = np.array(positive), np.array(negative)
    area = float(((p[:, None] > n) + 0.5 * (p[:, None] == n)).mean())
    others = len(n) if roots is None else roots

    def beyond(value: float) -> float:
        """Above 0 where the area found is further from ``value`` than chance takes it, would that be the true one."""
        half = (len(p) + others) / 2 - 1
        spread = 1 + half * (1 - value) / (2 - value) + half * value / (1 + value)
        return (area - value) ** 2 - Z_95**2 * value * (1 - value) * spread / (len(p) * others)

    low = brentq(beyond, 0.0, area - TINY) if area > TINY else 0.0
    high = brentq(beyond, area + TINY, 1.0) if area < 1 - TINY else 1.0
    return Figure(area, low, high, len(p))


def share(hits: int, of: int, roots: int | None = None) -> Figure | None:
    """``hits`` of ``of`` with Wilson's interval, as of ``roots`` models where not all are independent; None of none."""
    if not of:
        return None
    value, count = hits / of, of if roots is None else roots
    return Figure(value, *wilson(value * count, count), count)


def threshold(clean: Sequence[float], rate: float) -> float | None:
    """The smallest clean score that at most a share ``rate`` of further clean models would exceed (conformal).

    None where there are too few clean models to speak of so small a rate.
    """
    allowed = int(rate * (len(clean) + 1) + TINY)
    return sorted(clean, reverse=True)[allowed - 1] if allowed else None


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


def _of_clean_models(found: Iterable[Found]) -> dict[tuple[str, str, int], dict[_Clean, Mapping[str, Any]]]:
    """What each detector, given so many samples, says of the clean models of a task that it scores.

    A model counts once, however many chains of the matrix lead to it.
    """
    results: dict[tuple[str, str, int], dict[_Clean, Mapping[str, Any]]] = {}
    for entry, result in _done(pair for pair in found if pair[0].cell.kind == "detect" and pair[0].cell.is_clean):
        cell = entry.cell
        if _score(result) is not None:
            place = (entry.task, cell.method, cell.samples)
            results.setdefault(place, {})[cell.steps, cell.seed] = result
    return results


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


def _found(results: Sequence[Mapping[str, Any]], limit: float | None) -> Figure | None:
    """The share with a score above ``limit``; None where there is no such limit."""
    if limit is None:
        return None
    scores = [_score(result) for result in results]
    return _share([score is not None and score > limit for score in scores])


def _share(hits: Sequence[bool], roots: int | None = None) -> Figure | None:
    return share(sum(hits), len(hits), roots)


def _names_target(result: Mapping[str, Any]) -> bool:
    return result["target"] is not None and result["target"] == result["planted_target"]


def _alarmed(results: Sequence[Mapping[str, Any]], roots: int | None = None) -> Figure | None:
    """The share that a detector's own verdict calls backdoored; None where it gives none."""
    if all(result.get("alarm") is None for result in results):
        return None
    return _share([bool(result.get("alarm")) for result in results], roots)


def _mean_rate(results: Sequence[Mapping[str, Any]], name: str) -> Figure | None:
    """The mean of a rate over models. Its interval is Student's over them, and never narrower than their samples allow.

    A bootstrap over three models holds the true mean 74 times in 100, over two 51 times. A single model has Wilson's.
    """
    rates = [result[name] for result in results if result.get(name) is not None]
    if not rates:
        return None
    if len(rates) == 1:
        low, high = rates[0]["interval"]
        return Figure(rates[0]["value"], low, high, 1)
    values, count = np.array([rate["value"] for rate in rates]), len(rates)
    of_samples = np.array([(rate["interval"][1] - rate["interval"][0]) / 2 for rate in rates])
    between = float(student.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count))
    half = max(between, float(np.sqrt((of_samples**2).sum())) / count)
    mean = float(values.mean())
    return Figure(mean, max(0.0, mean - half), min(1.0, mean + half), count)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
