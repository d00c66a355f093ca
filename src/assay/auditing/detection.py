"""Detection: make each variant of a model, and run the planned detectors on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from assay.auditing.facts import AuditInputs, Plan, RunContext
from assay.calibration.reference import make_test_id
from assay.core.errors import AssayError, NoSuchVariant, first_line
from assay.core.finding import FULL, Finding
from assay.core.model import Artifact
from assay.core.progress import Progress, Step
from assay.core.result import VariantOutcome, VariantResult
from assay.detectors.encoder.cluster_probe import make_variant
from assay.detectors.margin_units import in_margin_units
from assay.nn.inference import forward_finite
from assay.stages import variants

# Fraction of the clean samples on which a variant may disagree with the full model; above it, compression broke it.
MAX_DISAGREEMENT = 0.15


@dataclass(frozen=True)
class AuditRun:
    """Findings of all tests, and the tested variants."""

    findings: tuple[Finding, ...]
    variants: tuple[VariantResult, ...]
    made: Mapping[str, Artifact]  # by name, the broken ones included


def run_tests(inputs: AuditInputs, plan: Plan, context: RunContext) -> AuditRun:
    """Run all tests of a plan.

    Args:
        inputs: The model and the samples.
        plan: Variants and detectors.
        context: Settings, known findings and callbacks.
    """
    findings: list[Finding] = []
    results: list[VariantResult] = []
    made: dict[str, Artifact] = {}
    done, total = 0, len(plan.tests)
    for name in plan.variants:
        context.progress(f"making {name}", done / max(1, total))
        result, variant = _make(name, inputs, context)
        results.append(result)
        if variant is not None:
            made[name] = variant
            compared = variant if name == FULL else replace(variant, reference=inputs.artifact)
            variant = in_margin_units(compared, inputs.samples.split)
        for detector in plan.detectors_on(name):
            if (known := context.known.get(make_test_id(name, detector.name))) is not None:
                findings.append(known)
            elif variant is not None and result.outcome is VariantOutcome.TESTED:
                progress = _test_progress(context.progress, f"{name}: {detector.name}", done, total)
                progress(0.0)
                found = detector(
                    variant, inputs.samples.split, seed=context.seed, budget=context.budget, progress=progress
                )
                findings.append(replace(found, variant=name))
                context.on_finding(findings[-1])
            done += 1
    context.progress("verdict", 1.0)
    return AuditRun(tuple(findings), tuple(results), made)


def _test_progress(progress: Step, test: str, done: int, total: int) -> Progress:
    """Return the progress callback of the test after ``done`` of ``total`` tests."""
    return lambda fraction: progress(test, (done + fraction) / total)


def _make(name: str, inputs: AuditInputs, context: RunContext) -> tuple[VariantResult, Artifact | None]:
    """Make one variant and measure it; None if it cannot be made."""
    spec, clean, full = variants.variant_of(name).description, inputs.samples.split, inputs.predictions

    def without(outcome: VariantOutcome, reason: str) -> tuple[VariantResult, None]:
        return VariantResult(name, spec, None, outcome=outcome, reason=reason), None

    if name != FULL and full is None:
        return without(VariantOutcome.UNAVAILABLE, "it needs clean samples, and there are none")
    if name != FULL and context.budget.left() <= 0:
        return without(VariantOutcome.OUT_OF_TIME, "the budget ended before it was made")
    variant, predictions = inputs.artifact, full
    if name != FULL:
        try:
            variant = make_variant(name, inputs.artifact, clean, seed=context.seed)
            predictions = forward_finite(variant.module, clean.x).argmax(1)
        except NoSuchVariant as error:
            result, _ = without(VariantOutcome.UNAVAILABLE, str(error))
            return replace(result, applies=False), None
        except AssayError as error:
            return without(VariantOutcome.UNAVAILABLE, str(error))
        except Exception as error:  # an arbitrary model can fail in any way; the other variants are still audited
            return without(VariantOutcome.UNAVAILABLE, f"it could not be made: {first_line(error)}")
    if full is None or predictions is None:
        return VariantResult(name, spec, None), variant
    agreement = float((predictions == full).float().mean())
    # The labels of an encoder are its own clusters, so their accuracy has no meaning.
    labels = None if inputs.is_encoder else clean.y
    accuracy = None if labels is None else float((predictions == labels).float().mean())
    if 1 - agreement <= MAX_DISAGREEMENT:
        return VariantResult(name, spec, accuracy, agreement), variant
    reason = f"it agrees with the full model on only {agreement:.0%} of the samples: compression broke it"
    return VariantResult(name, spec, accuracy, agreement, VariantOutcome.BROKEN, reason), variant
