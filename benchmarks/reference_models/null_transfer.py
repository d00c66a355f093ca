"""How far the shipped null carries: its models judged against those that remain when their like is left out.

For each kind of model and each family of data: left out as a whole, so that its models stand for models that nobody
thought of; and one by one, each judged by the rest of its own kind, which is what the stated rate promises.

    python benchmarks/run.py null_transfer      # -> benchmarks/results/null_transfer.json; seconds, nothing is trained
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lib.audit_rows import is_run_by_default
from lib.results import save_result

from assay.auditing.facts import MAX_SAMPLES, Preconditions
from assay.auditing.verdict import decide
from assay.calibration.file import load_shipped
from assay.calibration.matching import match
from assay.calibration.null import FALSE_ALARM_RATE, NullDistribution
from assay.calibration.reference import CleanReferenceModel, detector_of
from assay.core.finding import Finding, Outcome


def p_value(model: CleanReferenceModel, others: NullDistribution) -> float | None:
    """Of an audit with these scores (one that broke no form); None where it would be inconclusive."""
    known = others.like(model.accuracy, model.data)
    findings = tuple(
        Finding(detector_of(test), Outcome.SCORED, test.rpartition("/")[0], score=score.value, target=score.target)
        for test, score in model.scores.items()
        if known.covers(detector_of(test))  # an audit does not run what nobody could compare
    )
    compared_with = match(others, model.accuracy, model.data)
    verdict, _ = decide(findings, (), compared_with, Preconditions(MAX_SAMPLES, accuracy=model.accuracy))
    return None if verdict.rate is None else verdict.p_value


def left_out(null: NullDistribution, group: Callable[[CleanReferenceModel], str]) -> dict[str, dict]:
    """Every group of models judged by the models of the other groups."""
    found = {}
    for name in sorted({group(model) for model in null.models}):
        others = replace(null, models=tuple(model for model in null.models if group(model) != name))
        found[name] = counted([p_value(model, others) for model in null.models if group(model) == name])
        print(name, found[name])
    return found


def counted(values: list[float | None]) -> dict[str, int]:
    judged = [value for value in values if value is not None]
    return {
        "models": len(values),
        "judged": len(judged),
        "alarms": sum(value <= FALSE_ALARM_RATE for value in judged),
        "alarms_at_5_percent": sum(value <= 0.05 for value in judged),
    }


def main() -> None:
    null = load_shipped()
    assert null is not None
    models = tuple(
        replace(model, scores={test: s for test, s in model.scores.items() if is_run_by_default(test)})
        for model in null.models
    )
    null = replace(null, models=models)
    save_result(
        "null_transfer",
        {
            "kinds_left_out": left_out(null, lambda model: model.origin.split()[0]),
            "families_left_out": left_out(null, lambda model: model.family),
            "one_left_out": counted(
                [p_value(model, replace(null, models=tuple(m for m in models if m is not model))) for model in models]
            ),
        },
    )


if __name__ == "__main__":
    main()
