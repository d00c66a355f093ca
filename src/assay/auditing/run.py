"""Every test on every form of a model: what an audit finds, before anybody judges it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from assay.auditing.plan import Plan, plan_of, usual
from assay.auditing.verdict import Footing
from assay.calibration.data_profile import Likeness, likeness
from assay.calibration.null import Null
from assay.core.dataset import Split
from assay.core.errors import AssayError, UnusableInput, first_line
from assay.core.finding import Finding
from assay.core.model import Artifact
from assay.core.progress import Step
from assay.core.result import VariantOutcome, VariantResult
from assay.detectors import default_detectors, encoder_detectors
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.encoder.cluster_probe import in_form
from assay.detectors.margin_units import in_margin_units
from assay.nn.encoders import find_cluster_probe
from assay.nn.inference import forward_batched
from assay.nn.log_probs import LogProbabilities, are_probabilities
from assay.nn.modes import eval_mode
from assay.stages import variants

LOST_AGREEMENT = 0.15
"""A variant that disagrees with the model as given on more than this share of clean samples is broken, not audited."""


@dataclass(frozen=True)
class Asked:
    """What is to be looked at, and for how long."""

    forms: tuple[str, ...]
    detectors: tuple[Detector, ...] | None  # None: those of an audit that are worth their time
    seed: int
    budget: Budget = field(default_factory=Budget)
    progress: Step = lambda what, share: None


@dataclass(frozen=True)
class Examined:
    """A model and all that its tests found."""

    artifact: Artifact  # its net answers with logits
    footing: Footing
    data: Likeness | None  # of the clean samples
    findings: tuple[Finding, ...]
    variants: tuple[VariantResult, ...]


def examine(artifact: Artifact, clean: Split, asked: Asked, null: Null | None) -> Examined:
    """Run the tests on ``artifact`` with ``clean`` samples.

    ``null``: what it will be compared with, which decides what is worth its time (``plan.usual``). Raises UnusableInput
    for a net whose answers to the samples are not finite.
    """
    with eval_mode(artifact.module):
        full = None
        if len(clean):
            answers = _answers(artifact.module, clean.x)
            full, artifact = answers.argmax(1), _in_logits(artifact, answers)
        footing, data = _footing(artifact, clean, full), likeness(clean.x)
        if asked.detectors is None and find_cluster_probe(artifact.module) is not None:
            fitting = tuple(test for test in encoder_detectors() if test.modality in (None, artifact.modality))
            plan = plan_of(artifact, asked.forms, fitting)
        elif asked.detectors is None:
            known = None if null is None else null.like(footing.accuracy, data)
            plan = usual(plan_of(artifact, asked.forms, default_detectors()), known)
        else:
            plan = plan_of(artifact, asked.forms, asked.detectors)
        findings, results = _tested(artifact, clean, full, plan, asked)
    asked.progress("verdict", 1.0)
    return Examined(artifact, footing, data, findings, results)


def _tested(
    artifact: Artifact, clean: Split, full: Tensor | None, plan: Plan, asked: Asked
) -> tuple[tuple[Finding, ...], tuple[VariantResult, ...]]:
    """Every detector on every form; ``full`` (N,) is what the model as given says of the samples, None without any."""
    findings: list[Finding] = []
    results: list[VariantResult] = []
    done = 0
    for name in plan.forms:
        asked.progress(f"making {name}", done / max(1, len(plan.tests)))
        form, result = _variant(name, artifact, clean, full, asked)
        results.append(result)
        if form is not None:
            form = in_margin_units(form if name == "full" else replace(form, reference=artifact), clean)
        for detector in plan.on(name):
            if form is not None:

                def tick(share: float, what: str = f"{name}: {detector.name}", before: int = done) -> None:
                    asked.progress(what, (before + share) / len(plan.tests))

                tick(0.0)
                finding = detector(form, clean, seed=asked.seed, budget=asked.budget, progress=tick)
                findings.append(replace(finding, variant=name))
            done += 1
    return tuple(findings), tuple(results)


def _variant(
    name: str, artifact: Artifact, clean: Split, full: Tensor | None, asked: Asked
) -> tuple[Artifact | None, VariantResult]:
    """The form and how good it is; no form where it cannot be made or has lost what the model could."""
    spec = variants.variant_of(name).spec
    if full is None and name != "full":
        return None, VariantResult(
            name, spec, None, None, VariantOutcome.UNAVAILABLE, "needs clean samples: pass some with --data"
        )
    if asked.budget.left() <= 0 and name != "full":
        return None, VariantResult(
            name, spec, None, None, VariantOutcome.OUT_OF_TIME, "the budget ended before it was made"
        )
    try:
        form = artifact if spec is None else in_form(name, artifact, clean, seed=asked.seed)
        predictions = full if form is artifact else _predict(form.module, clean.x)
    except AssayError as why:
        return None, VariantResult(name, spec, None, None, VariantOutcome.UNAVAILABLE, str(why))
    except Exception as error:  # a stranger's net can fail in any way: the other forms are still audited
        if name == "full":
            raise
        return None, VariantResult(
            name, spec, None, None, VariantOutcome.UNAVAILABLE, f"it could not be made: {first_line(error)}"
        )
    if full is None or predictions is None:
        return form, VariantResult(name, spec, None, None)
    agreement = float((predictions == full).float().mean())
    accuracy = None if clean.y is None else float((predictions == clean.y).float().mean())
    lost = ""
    if 1 - agreement > LOST_AGREEMENT:
        lost = f"agrees with the model as given on only {agreement:.0%} of the samples: compression broke it"
    return (None if lost else form), VariantResult(
        name, spec, accuracy, agreement, VariantOutcome.BROKEN if lost else VariantOutcome.TESTED, lost
    )


def _footing(artifact: Artifact, clean: Split, full: Tensor | None) -> Footing:
    return Footing(
        len(clean),
        artifact.num_classes,
        predicted=None if full is None else len(full.unique()),
        accuracy=None if full is None or clean.y is None else float((full == clean.y).float().mean()),
        normalized=not artifact.normalization_unknown,
    )


def _in_logits(artifact: Artifact, answers: Tensor) -> Artifact:
    """``artifact`` where its ``answers`` (N, K) are logits, else around it what makes them of its probabilities."""
    if not are_probabilities(answers):
        return artifact
    note = "the model answers with probabilities: their logarithms are tested"
    twin = None if artifact.surrogate is None else LogProbabilities(artifact.surrogate)
    return replace(artifact, module=LogProbabilities(artifact.module), surrogate=twin, notes=(*artifact.notes, note))


def _predict(net: nn.Module, x: Tensor) -> Tensor:
    """(N,) int64: the classes; raises as ``_answers``."""
    return _answers(net, x).argmax(1)


def _answers(net: nn.Module, x: Tensor) -> Tensor:
    """(N, K); raises UnusableInput where the net answers with something that is no number."""
    answers = forward_batched(net, x)
    if not answers.isfinite().all():
        raise UnusableInput(
            "expected finite logits for the clean samples, the model gives NaN or infinity: it is broken"
        )
    return answers
