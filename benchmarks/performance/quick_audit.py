"""The quick audit compared with the full audit: backdoored models found, false alarms, and CPU seconds.

    python benchmarks/run.py quick_audit scores   # from stored scores and the shipped null distribution; runs no test
    python benchmarks/run.py quick_audit time     # one quick audit of the third-party ResNet-20, one thread, float32
                                                  # both -> benchmarks/results/quick_audit.json

The stored scores are those of the CIFAR-10 matrix and of both rounds of third-party attacks. Each extent of an audit is
compared with the same tests of the reference models, so all extents have the same rate of false alarms. The reference
models show that rate: each is compared with the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from lib import commands
from lib.paths import MATRICES
from lib.results import load_result, save_result
from lib.timed_audit import timed_audit
from tables.matrices import cells_and_records

from assay.calibration.data_profile import DataProfile
from assay.calibration.file import load_shipped
from assay.calibration.null import FALSE_ALARM_RATE, MIN_REFERENCE_MODELS, NullDistribution
from assay.calibration.reference import Score, make_test_id
from assay.core.finding import FULL
from assay.detectors import default_detectors, quick_detectors

NAME = "quick_audit"
CLASSES = 10  # of CIFAR-10
VALID_ASR = 0.8  # attacks below count as failed
SEARCHES = ("max-margin", "neural-cleanse", "local-patch", "universal-perturbation")
DETECTORS = {detector.name for detector in default_detectors()}
QUICK, ON_FULL, WHOLE = "quick audit", "full audit, model as given", "full audit, all variants"


@dataclass(frozen=True)
class ScoredModel:
    """One model with stored scores."""

    backdoored: bool
    accuracy: float
    data: DataProfile
    scores: dict[str, Score]  # by test


def extents() -> dict[str, frozenset[str] | None]:
    """Return the tests of each extent by its name; None: all tests with a score."""
    quick = [detector.name for detector in quick_detectors(CLASSES)]
    scans = [name for name in quick if name not in SEARCHES]
    named = {"scans alone": scans, **{f"scans and {search}": [*scans, search] for search in SEARCHES}}
    named |= {QUICK: quick, ON_FULL: [*scans, *SEARCHES]}
    tests = {name: frozenset(make_test_id(FULL, detector) for detector in names) for name, names in named.items()}
    return {**tests, WHOLE: None}


def third_party_models(name: str) -> Iterator[ScoredModel]:
    """Yield the models of one round of third-party attacks, without the failed attacks."""
    for row in load_result(name)["models"].values():
        if not row["backdoored"] or row["asr"] >= VALID_ASR:
            scores = {
                test: Score(score, target) for test, (score, _, target) in row["findings"].items() if score is not None
            }
            yield ScoredModel(
                row["backdoored"], row["variants"][FULL], tuple(row.get("data") or cifar_profile()), scores
            )


def matrix_models() -> Iterator[ScoredModel]:
    """Yield the models of the CIFAR-10 matrix. Their single detectors ran on the model as given."""
    results: dict[tuple[Any, ...], dict[str, Any]] = {}
    for entry, record in cells_and_records(MATRICES / "cifar10.jsonl"):
        model = (entry.task, entry.attack, entry.chain, entry.cell.seed)
        kind = entry.cell.method if entry.cell.kind == "detect" else entry.cell.kind
        results.setdefault(model, {})[kind] = record.result
    for result in results.values():
        measured, found = result["measure"], {name: result[name] for name in result if name in DETECTORS}
        asr = measured.get("attack_success")
        if asr is None or asr["value"] >= VALID_ASR:
            scores = {make_test_id(FULL, name): Score(one["score"], one["target"]) for name, one in found.items()}
            yield ScoredModel(asr is not None, measured["clean_accuracy"]["value"], cifar_profile(), scores)


@cache
def cifar_profile() -> DataProfile:
    """Return the data profile of a model on CIFAR-10; older rows hold none."""
    rows = load_result("generality_2")["models"].values()
    return tuple(next(row["data"] for row in rows if row.get("data")))


def alarm(null: NullDistribution, model: ScoredModel, tests: Collection[str] | None) -> bool | None:
    """Return whether an audit with these tests finds a backdoor; None: too few reference models."""
    scores = {test: score for test, score in model.scores.items() if tests is None or test in tests}
    comparison = null.matched_to(model.accuracy, model.data).compare(scores)
    if comparison is None or len(comparison.null_statistics) < MIN_REFERENCE_MODELS:
        return None
    return comparison.p_value <= FALSE_ALARM_RATE


def compare_extents(null: NullDistribution, models: list[ScoredModel]) -> dict[str, dict[str, int]]:
    """Return the counts of found backdoors and false alarms of each extent.

    ``of_full`` counts those that the full audit finds too. The matrix has scores on the model as given only.
    """
    alarms = {name: [alarm(null, model, tests) for model in models] for name, tests in extents().items()}
    rows = {}
    for name, found in alarms.items():
        planted = [
            (one, full) for model, one, full in zip(models, found, alarms[WHOLE], strict=True) if model.backdoored
        ]
        clean = [one for model, one in zip(models, found, strict=True) if not model.backdoored]
        rows[name] = {
            "found": sum(one is True for one, _ in planted),
            "backdoored": len(planted),
            "of_full": sum(one is True and full is True for one, full in planted),
            "false_alarms": sum(one is True for one in clean),
            "clean": len(clean),
        }
    return rows


def false_alarm_rates(null: NullDistribution) -> dict[str, dict[str, int]]:
    """Return the false alarms among the reference models, each compared with the others.

    The last row counts an alarm of the quick audit or of the full audit after it.
    """
    alarms: dict[str, list[bool | None]] = {name: [] for name in (QUICK, ON_FULL)}
    for index, model in enumerate(null.models):
        others = replace(null, models=null.models[:index] + null.models[index + 1 :])
        candidate = ScoredModel(False, model.accuracy or 0.0, model.data, dict(model.scores))
        for name, found in alarms.items():
            found.append(alarm(others, candidate, extents()[name]))
    both = [None if None in pair else any(pair) for pair in zip(*alarms.values(), strict=True)]
    named = {**alarms, f"{QUICK}, then {ON_FULL}": both}
    return {
        name: {"alarms": found.count(True), "models": len(found) - found.count(None)} for name, found in named.items()
    }


def scores() -> None:
    """Compare the extents, and write the result file."""
    null = load_shipped()
    assert null is not None
    sets = {
        "CIFAR-10 matrix": list(matrix_models()),
        "third-party attacks, first round": list(third_party_models("generality_1")),
        "third-party attacks, held out": list(third_party_models("generality_2")),
    }
    found = {name: compare_extents(null, models) for name, models in sets.items()}
    save_result(NAME, {**load_result(NAME), "models": found, "reference_models": false_alarm_rates(null)})


def measure() -> None:
    """Time a quick audit, and write the result file."""
    timed = timed_audit("--quick")
    completed, left_out = (timed.document["quick"][part] for part in ("completed", "left_out"))
    figures = {
        "cpu_seconds": timed.cpu_seconds,
        "wall_seconds": timed.wall_seconds,
        "peak_mib": timed.peak_mib,
        "exit_code": timed.exit_code,
        "verdict": timed.document["verdict"],
        "completed": completed,
        "tests_of_full_audit": len(completed) + len(left_out),
    }
    save_result(NAME, {**load_result(NAME), "time": figures})


def cli() -> None:
    """Run the command line."""
    command_line = commands.parser(__doc__)
    add_command = commands.subcommands(command_line)
    add_command("scores", scores, "compare the extents on stored scores")
    add_command("time", measure, "time one quick audit")
    commands.run(command_line)
