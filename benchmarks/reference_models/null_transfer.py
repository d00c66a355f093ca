"""False alarms of the shipped null distribution on its own models, compared with the remaining ones.

Each kind of model and each family of data is left out as a whole, as a stand-in for unknown kinds of models. Each model
is also left out by itself and compared with the others of its kind; the stated rate is for that case.

    python benchmarks/run.py null_transfer      # -> benchmarks/results/null_transfer.json; seconds, no training
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lib import commands
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
    """Return the p-value of an audit with these scores and without broken variants; None if inconclusive."""
    matched = others.matched_to(model.accuracy, model.data)
    findings = tuple(
        Finding(detector_of(test), Outcome.SCORED, test.rpartition("/")[0], score=score.value, target=score.target)
        for test, score in model.scores.items()
        if matched.covers(detector_of(test))  # an audit does not run a test without reference scores
    )
    compared_with = match(others, model.accuracy, model.data)
    verdict, _ = decide(findings, (), compared_with, Preconditions(MAX_SAMPLES, accuracy=model.accuracy))
    return None if verdict.rate is None else verdict.p_value


def leave_groups_out(null: NullDistribution, group: Callable[[CleanReferenceModel], str]) -> dict[str, dict]:
    """Compare each group of models with the models of the other groups."""
    counts = {}
    for name in sorted({group(model) for model in null.models}):
        others = replace(null, models=tuple(model for model in null.models if group(model) != name))
        counts[name] = count_alarms([p_value(model, others) for model in null.models if group(model) == name])
        print(name, counts[name])
    return counts


def count_alarms(values: list[float | None]) -> dict[str, int]:
    """Return the counts of models, verdicts and alarms."""
    with_verdict = [value for value in values if value is not None]
    return {
        "models": len(values),
        "judged": len(with_verdict),
        "alarms": sum(value <= FALSE_ALARM_RATE for value in with_verdict),
        "alarms_at_5_percent": sum(value <= 0.05 for value in with_verdict),
    }


def main() -> None:
    """Count the alarms, and write the result file."""
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
            "kinds_left_out": leave_groups_out(null, lambda model: model.origin.split()[0]),
            "families_left_out": leave_groups_out(null, lambda model: model.family),
            "one_left_out": count_alarms(
                [p_value(model, replace(null, models=tuple(m for m in models if m is not model))) for model in models]
            ),
        },
    )


def cli() -> None:
    """Run the command line."""
    commands.parser(__doc__).parse_args()
    main()
