"""Trigger sweep: success rate of a found trigger at increasing compression."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from assay.auditing.facts import Plan, RunContext
from assay.calibration.reference import make_test_id
from assay.core.dataset import Split
from assay.core.finding import FULL, Finding
from assay.core.model import Artifact
from assay.core.result import SweepPoint
from assay.detectors.budget import StepBudget
from assay.detectors.encoder.cluster_probe import make_variant
from assay.nn.inference import predict

# Variants by kind of compression, each with the label of its level.
SERIES = {
    "bits of the weights": {FULL: "32", "int8": "8", **{f"int{bits}": str(bits) for bits in (6, 5, 4, 3)}},
    "weights pruned": {FULL: "0 %", **{f"prune-{percent}": f"{percent} %" for percent in (20, 40, 50, 60, 70, 80)}},
    "filters pruned": {FULL: "0 %", **{f"filters-{percent}": f"{percent} %" for percent in (10, 20, 30, 40, 50)}},
}
AUDITED = "variants of this audit"

SWEEP_SAMPLES = 256

# p-value up to which the trigger of a compression gap is shown. Clean models have triggers for their gaps too.
MAX_GAP_P_VALUE = 0.05


class FoundTrigger(NamedTuple):
    """Trigger found by a test."""

    apply: Callable[[Tensor], Tensor]  # inputs -> triggered inputs
    target: int
    test: str  # "variant/detector"


def choose_trigger(findings: tuple[Finding, ...], strongest: str | None, plan: Plan) -> FoundTrigger | None:
    """Return the trigger to sweep: of the test behind the verdict, else of the clearest compression gap, if any.

    Args:
        findings: With p-values.
        strongest: The test behind a verdict "backdoored"; None: another verdict.
        plan: The tests of the audit.
    """
    comparing = {detector.name for _, detector in plan.tests if detector.compares_variants}
    blamed = [f for f in findings if make_test_id(f.variant, f.detector) == strongest]
    gaps = [
        f
        for f in findings
        if f.detector in comparing and f.variant != FULL and (f.score or 0.0) > 0
        if f.p_value is None or f.p_value <= MAX_GAP_P_VALUE
        if not blamed or f.target == blamed[0].target
    ]
    gaps.sort(key=lambda f: (1.0 if f.p_value is None else f.p_value, -(f.score or 0.0)))
    for finding in (*blamed, *gaps):
        if finding.evidence.apply is not None and finding.target is not None:
            test = make_test_id(finding.variant, finding.detector)
            return FoundTrigger(finding.evidence.apply, finding.target, test)
    return None


def sweep_trigger(
    artifact: Artifact,
    clean: Split,
    trigger: FoundTrigger,
    audited: Mapping[str, Artifact | None],
    context: RunContext,
) -> tuple[SweepPoint, ...]:
    """Measure a trigger in each variant, within the budget.

    The success rate leaves out the samples with the target as their prediction without the trigger.

    Args:
        artifact: The full model.
        clean: Clean samples.
        trigger: The trigger to measure.
        audited: Variants of the audit by name, shown first; None: not made yet.
        context: Seed, budget and progress.
    """
    x = clean.x[:SWEEP_SAMPLES]
    before = predict(artifact.module, x)
    victims = x[before != trigger.target]
    if not len(victims):
        return ()
    triggered = trigger.apply(victims)
    series = {AUDITED: {name: name for name in audited}, **SERIES}
    steps = [(kind, name, label) for kind, labels in series.items() for name, label in labels.items()]
    points = []
    effects: dict[str, tuple[float, float]] = {}  # agreement and success by variant: several series share some
    budget = StepBudget(context.budget)
    for index, (kind, name, label) in enumerate(steps):
        context.progress(f"the trigger on other variants, {index} of {len(steps)} done", 1.0)
        if not budget.allows_step():
            break
        try:
            if name not in effects:
                with budget.step():
                    variant = audited.get(name) or make_variant(name, artifact, clean, seed=context.seed)
                    agreement = float((predict(variant.module, x) == before).float().mean())
                    success = float((predict(variant.module, triggered) == trigger.target).float().mean())
                effects[name] = agreement, success
        except Exception:  # an arbitrary model can fail in any way; the chart has one point less
            continue
        points.append(SweepPoint(kind, label, *effects[name], trigger.target, trigger.test))
    return tuple(points)
