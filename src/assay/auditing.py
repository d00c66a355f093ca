"""The audit: variants x detectors -> findings -> one calibrated verdict."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from assay import __version__, intake, variants
from assay.artifact import Artifact
from assay.calibrate import Null, Reference, cell
from assay.detectors import CompressionGap, CompressionGapMask
from assay.detectors.base import Budget, Detector, Finding, comparable
from assay.errors import AssayError, UnusableInput, first_line
from assay.likeness import likeness
from assay.models.modes import evaluating
from assay.models.predict import logits
from assay.models.probabilities import LogOf, are_probabilities
from assay.plan import Plan, plan_of, usual
from assay.progress import Step
from assay.result import Audit, ModelInfo, VariantResult, Waking, as_call
from assay.task import Split, Task
from assay.verdict import Footing, decide, limits, scores_of
from assay.waking import waking

LOST_AGREEMENT = 0.15
"""A variant that disagrees with the model as given on more than this share of clean samples is broken, not audited."""

OPEN = 0.05
"""The p-value up to which a gap between two forms is shown as one; clean models have a trigger for it too."""

NOTHING = Null("none", "", ())
"""To be compared with by what is a reference model itself."""


def audit(
    model: intake.Model,
    data: intake.Data = None,
    *,
    arch: str | None = None,
    shape: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    labels: bool = True,
    variant_names: Sequence[str] = variants.DEFAULT,
    detectors: Sequence[Detector | str] | str | None = None,
    budget: float = math.inf,
    reference: intake.Model | None = None,
    reference_arch: str | None = None,
    null: Null | str | Path | None = None,
    seed: int = 0,
    progress: Step = lambda what, share: None,
) -> Audit:
    """Audit a model in every variant with every detector.

    ``model``: a path or hub id as on the command line, an Artifact, or a net in memory. ``shape``: the input's
    (C, H, W), needed for a net in memory. ``data``: a source as on the command line, a Task, a Split, pictures
    (N, C, H, W) in [0, 1] as a tensor or array, a pair of pictures and labels (N,), or a torch DataLoader or Dataset.
    ``labels`` False: what looks like labels is none. ``variant_names`` and ``detectors``: names, those of
    ``assay list``, or one text with commas; detectors may be objects too. ``budget`` in seconds. ``reference``: the
    full-precision model that this one was made from, as ``model``, with ``reference_arch`` as its ``arch``. ``null``:
    clean reference models or the file of them, those of the package by default. What was guessed or converted stands in
    the result's ``notes``. Raises UnusableInput for a model or data that cannot be used.
    """
    start = time.perf_counter()
    artifact = intake.artifact_of(model, arch=arch, shape=shape, mean=mean, std=std)
    if reference is not None:
        full_model = intake.artifact_of(reference, arch=reference_arch, shape=shape, mean=mean, std=std)
        artifact = intake.beside(artifact, full_model)
    given = intake.clean_samples(data, artifact, seed=seed, labels=labels)
    clean = given.split
    deadline = Budget(budget)
    names = variants.parse(variant_names if isinstance(variant_names, str) else tuple(variant_names))
    chosen = intake.detectors_of(detectors)
    clean_models = intake.reference_of(null)
    with evaluating(artifact.net):
        full = None
        if len(clean):
            answers = _answers(artifact.net, clean.x)
            full, artifact = answers.argmax(1), _in_logits(artifact, answers)
        footing, data_like = _footing(artifact, clean, full), likeness(clean.x)
        known = None if clean_models is None else clean_models.like(footing.accuracy, data_like)
        plan = plan_of(artifact, names, chosen)
        plan = plan if detectors is not None else usual(plan, known)
        findings, results = _test(artifact, clean, full, plan, deadline, seed, progress)
    progress("verdict", 1.0)
    verdict, alike = decide(findings, results, clean_models, footing, data_like)
    findings = tuple(_calibrated(finding, alike) for finding in findings)
    woken: tuple[Waking, ...] = ()
    if clean_models is not NOTHING:  # nobody reads the page of a reference model
        woken = _woken(artifact, clean, findings, verdict.strongest, names, deadline, seed, progress)
    return Audit(
        verdict=verdict.word,
        reason=verdict.reason,
        p_value=verdict.p_value,
        false_alarm_rate=verdict.rate,
        statistic=verdict.statistic,
        target=verdict.target,
        strongest=verdict.strongest,
        model=_info(model, artifact, given.class_names),
        findings=findings,
        variants=results,
        limits=limits(findings, results, labelled=clean.y is not None),
        data_name=given.name,
        data_samples=len(clean),
        null=verdict.null,
        seconds=time.perf_counter() - start,
        seed=seed,
        version=__version__,
        waking=woken,
        notes=(*artifact.notes, *given.notes),
        command=as_call(
            model,
            data,
            {
                "arch": arch,
                "shape": None if shape is None else artifact.inputs.shape,
                "mean": None if mean is None else tuple(map(float, mean)),
                "std": None if std is None else tuple(map(float, std)),
                "labels": None if labels else False,
                "variant_names": names,
                "detectors": detectors if detectors is None or isinstance(detectors, str) else tuple(detectors),
                "budget": budget if math.isfinite(budget) else None,
                "reference": reference,
                "reference_arch": reference_arch,
                "null": null,
                "seed": seed,
            },
        ),
    )


def _info(model: intake.Model, artifact: Artifact, class_names: tuple[str, ...] | None) -> ModelInfo:
    """Which model this is; ``class_names``: what the data calls its classes, where it has no names itself."""
    return ModelInfo(
        path=str(model) if isinstance(model, str | Path) else artifact.name,
        digest=artifact.digest,
        format=artifact.format,
        modality=str(artifact.modality),
        num_classes=artifact.num_classes,
        planted=artifact.planted,
        arch=artifact.arch,
        class_names=artifact.class_names or class_names,
        shape=artifact.inputs.shape,
    )


def _test(
    artifact: Artifact,
    clean: Split,
    full: Tensor | None,
    plan: Plan,
    deadline: Budget,
    seed: int,
    progress: Step,
) -> tuple[tuple[Finding, ...], tuple[VariantResult, ...]]:
    """Every detector on every form; ``full`` (N,) is what the model as given says of the samples, None without any."""
    findings: list[Finding] = []
    results: list[VariantResult] = []
    done = 0
    for name in plan.forms:
        progress(f"making {name}", done / max(1, len(plan.tests)))
        form, result = _variant(name, artifact, clean, full, deadline, seed)
        results.append(result)
        if form is not None:
            form = comparable(form if name == "full" else replace(form, reference=artifact), clean)
        for detector in plan.on(name):
            if form is not None:

                def tick(share: float, what: str = f"{name}: {detector.name}", before: int = done) -> None:
                    progress(what, (before + share) / len(plan.tests))

                tick(0.0)
                finding = detector(form, clean, seed=seed, budget=deadline, progress=tick)
                findings.append(replace(finding, variant=name))
            done += 1
    return tuple(findings), tuple(results)


def _variant(
    name: str, artifact: Artifact, clean: Split, full: Tensor | None, deadline: Budget, seed: int
) -> tuple[Artifact | None, VariantResult]:
    """The form and how good it is; no form where it cannot be made or has lost what the model could."""
    spec = variants.variant_of(name).spec
    if full is None and name != "full":
        return None, VariantResult(name, spec, None, None, "needs clean samples: pass some with --data")
    if deadline.left() <= 0 and name != "full":
        return None, VariantResult(name, spec, None, None, "the budget ended before it was made", late=True)
    try:
        form = variants.make(name, artifact, clean, seed=seed)
        predictions = full if form is artifact else _predict(form.net, clean.x)
    except AssayError as why:
        return None, VariantResult(name, spec, None, None, str(why))
    except Exception as error:  # a stranger's net can fail in any way: the other forms are still audited
        if name == "full":
            raise
        return None, VariantResult(name, spec, None, None, f"it could not be made: {first_line(error)}")
    if full is None or predictions is None:
        return form, VariantResult(name, spec, None, None)
    agreement = float((predictions == full).float().mean())
    accuracy = None if clean.y is None else float((predictions == clean.y).float().mean())
    lost = ""
    if 1 - agreement > LOST_AGREEMENT:
        lost = f"agrees with the model as given on only {agreement:.0%} of the samples: compression broke it"
    return (None if lost else form), VariantResult(name, spec, accuracy, agreement, lost, broken=bool(lost))


def _footing(artifact: Artifact, clean: Split, full: Tensor | None) -> Footing:
    return Footing(
        len(clean),
        artifact.num_classes,
        predicted=None if full is None else len(full.unique()),
        accuracy=None if full is None or clean.y is None else float((full == clean.y).float().mean()),
        normalized=not artifact.range_assumed,
    )


def _in_logits(artifact: Artifact, answers: Tensor) -> Artifact:
    """``artifact`` where its ``answers`` (N, K) are logits, else around it what makes them of its probabilities."""
    if not are_probabilities(answers):
        return artifact
    note = "the model answers with probabilities: their logarithms are tested"
    return replace(artifact, net=LogOf(artifact.net), notes=(*artifact.notes, note))


def _predict(net: nn.Module, x: Tensor) -> Tensor:
    """(N,) int64: the classes; raises as ``_answers``."""
    return _answers(net, x).argmax(1)


def _answers(net: nn.Module, x: Tensor) -> Tensor:
    """(N, K); raises UnusableInput where the net answers with something that is no number."""
    answers = logits(net, x)
    if not answers.isfinite().all():
        raise UnusableInput(
            "expected finite logits for the clean samples, the model gives NaN or infinity: it is broken"
        )
    return answers


def _calibrated(finding: Finding, null: Null | None) -> Finding:
    if finding.status != "ok" or finding.score is None or null is None:
        return finding
    test = cell(finding.variant, finding.detector)
    scores = tuple(float(s) for s in null.scores(test))
    return replace(finding, p_value=null.p_value(test, finding.score), null_scores=scores)


def _woken(
    artifact: Artifact,
    clean: Split,
    findings: tuple[Finding, ...],
    strongest: str | None,
    names: tuple[str, ...],
    deadline: Budget,
    seed: int,
    progress: Step,
) -> tuple[Waking, ...]:
    """What the trigger that the verdict rests on does from form to form; else one that opened a gap, if any did."""
    blamed = [f for f in findings if cell(f.variant, f.detector) == strongest]
    gaps = [
        f
        for f in findings
        if f.detector in (CompressionGap.name, CompressionGapMask.name) and f.variant != "full"
        if f.p_value is None or f.p_value <= OPEN
    ]
    shown = next((f for f in (*blamed, *gaps) if f.evidence.apply is not None and f.target is not None), None)
    if shown is None or shown.evidence.apply is None or shown.target is None:
        return ()

    def tick(share: float) -> None:
        progress("the trigger in other forms", share)

    with evaluating(artifact.net):
        return waking(
            artifact, clean, shown.evidence.apply, shown.target, names, seed=seed, budget=deadline, progress=tick
        )


def reference_from(
    model: Artifact,
    data: Task | Split,
    *,
    variant_names: Sequence[str] = variants.DEFAULT,
    detectors: Sequence[Detector] | None = None,
    seed: int = 0,
    origin: str = "",
    family: str = "",
) -> Reference:
    """A clean model as one of the reference models: its scores, and what others may be compared with it by."""
    clean = intake.clean_samples(data, model, seed=seed).split
    result = audit(model, data, variant_names=variant_names, detectors=detectors, null=NOTHING, seed=seed)
    return Reference(scores_of(result.findings), origin, result.accuracy, family, likeness(clean.x) or ())
