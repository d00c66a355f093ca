"""The audit: what the tests find in a model -> one calibrated verdict."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from assay._version import __version__
from assay.auditing import inputs as intake
from assay.auditing.run import Asked, examine
from assay.auditing.trigger_sweep import waking
from assay.auditing.verdict import decide, limits, scores_of
from assay.calibration.null import NullDistribution
from assay.calibration.reference import CleanReferenceModel, make_test_id
from assay.core.dataset import Split, Task
from assay.core.finding import Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Step
from assay.core.result import Audit, ModelInfo, SweepPoint, as_call
from assay.detectors import CompressionGap, CompressionGapMask
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.encoder import cluster_probe
from assay.nn.modes import eval_mode
from assay.stages import variants

OPEN = 0.05
"""The p-value up to which a gap between two forms is shown as one; clean models have a trigger for it too."""


def audit(
    model: intake.Model,
    data: intake.Data = None,
    *,
    arch: str | None = None,
    shape: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    features: bool = False,
    pooling: str | None = None,
    labels: bool = True,
    variant_names: Sequence[str] = variants.DEFAULT,
    detectors: Sequence[Detector | str] | str | None = None,
    budget: float = math.inf,
    reference: intake.Model | None = None,
    reference_arch: str | None = None,
    reference_pooling: str | None = None,
    null: NullDistribution | str | Path | None = None,
    seed: int = 0,
    progress: Step = lambda what, share: None,
) -> Audit:
    """Audit a model in every variant with every detector.

    ``model``: a path or hub id as on the command line, an Artifact, or a net in memory. ``shape``: the input's
    (C, H, W), needed for a net in memory. ``features``: cut a classifier at its features, and audit that encoder;
    ``pooling``: see ``formats.load``. ``data``: a source as on the command line, a Task, a Split, pictures
    (N, C, H, W) in [0, 1] as a tensor or array, a pair of pictures and labels (N,), or a torch DataLoader or Dataset.
    ``labels`` False: what looks like labels is none. ``variant_names`` and ``detectors``: names, those of
    ``assay list``, or one text with commas; detectors may be objects too. ``budget`` in seconds. ``reference``: the
    full-precision model that this one was made from, or a trusted encoder, as ``model``, with ``reference_arch`` as its
    ``arch`` and ``reference_pooling`` as its ``pooling`` (None: as the model's). ``null``: clean reference models or
    the file of them, those of the package by default. What was guessed or converted stands in the result's ``notes``.
    Raises UnusableInput for a model or data that cannot be used.
    """
    start = time.perf_counter()
    said = intake.Said(arch, shape, mean, std, features, pooling)
    artifact = intake.artifact_of(model, said)
    encoder = artifact.num_classes is None
    if reference is not None:
        others = replace(said, arch=reference_arch, pooling=reference_pooling or pooling)
        artifact = intake.beside(artifact, intake.artifact_of(reference, others))
    given = intake.clean_samples(data, artifact, seed=seed, labels=labels)
    if encoder:
        artifact, given = _as_classifier(artifact, given, seed)
    deadline = Budget(budget)
    names = variants.parse(variant_names if isinstance(variant_names, str) else tuple(variant_names))
    if encoder and names == variants.DEFAULT:
        names = ("full",)  # what is deployed is made of it later, and is audited then
    chosen = None if detectors is None else intake.detectors_of(detectors)
    asked = Asked(names, chosen, seed, deadline, progress)
    clean_models = intake.reference_of(null, encoder=encoder)
    result = _judged(artifact, given, asked, clean_models)
    options = {
        **said.options(artifact),
        "labels": None if labels else False,
        "variant_names": names,
        "detectors": detectors if detectors is None or isinstance(detectors, str) else tuple(detectors),
        "budget": budget if math.isfinite(budget) else None,
        "reference": reference,
        "reference_arch": reference_arch,
        "reference_pooling": reference_pooling,
        "null": null,
        "seed": seed,
    }
    path = str(model) if isinstance(model, str | Path) else artifact.name
    if encoder:  # how often it names the nearest cluster says nothing of it
        result = replace(result, variants=tuple(replace(form, accuracy=None) for form in result.variants))
    return replace(
        result,
        model=replace(result.model, path=path, num_classes=None if encoder else result.model.num_classes),
        command=as_call(model, data, options),
        seconds=time.perf_counter() - start,
    )


def _as_classifier(encoder: Artifact, given: intake.Clean, seed: int) -> tuple[Artifact, intake.Clean]:
    artifact, split = cluster_probe.probed(encoder, given.split, seed=seed)
    return artifact, replace(given, split=split, class_names=artifact.class_names)


def _judged(artifact: Artifact, given: intake.Clean, asked: Asked, clean_models: NullDistribution | None) -> Audit:
    """The audit of ``artifact``; how long it took, its path and what repeats it stand for whoever read the options."""
    clean = given.split
    found = examine(artifact, clean, asked, clean_models)
    verdict, alike = decide(found.findings, found.variants, clean_models, found.footing, found.data)
    findings = tuple(_calibrated(finding, alike) for finding in found.findings)
    return Audit(
        verdict=verdict.word,
        reason=verdict.reason,
        p_value=verdict.p_value,
        false_alarm_rate=verdict.rate,
        statistic=verdict.statistic,
        target=verdict.target,
        strongest=verdict.strongest,
        model=_info(found.artifact, given.class_names),
        findings=findings,
        variants=found.variants,
        limits=limits(findings, found.variants, labelled=clean.y is not None),
        data_name=given.name,
        data_samples=len(clean),
        null=verdict.null,
        seconds=0.0,
        seed=asked.seed,
        version=__version__,
        trigger_sweep=_woken(found.artifact, clean, findings, verdict.strongest, asked),
        notes=(*found.artifact.notes, *given.notes),
    )


def _info(artifact: Artifact, class_names: tuple[str, ...] | None) -> ModelInfo:
    """Which model this is; ``class_names``: what the data calls its classes, where it has no names itself."""
    return ModelInfo(
        path=artifact.name,
        digest=artifact.digest,
        format=artifact.format,
        modality=str(artifact.modality),
        num_classes=artifact.num_classes,
        planted=artifact.planted,
        arch=artifact.arch,
        class_names=artifact.class_names or class_names,
        shape=artifact.inputs.shape,
    )


def _calibrated(finding: Finding, null: NullDistribution | None) -> Finding:
    if finding.outcome is not Outcome.SCORED or finding.score is None or null is None:
        return finding
    test = make_test_id(finding.variant, finding.detector)
    scores = tuple(float(s) for s in null.scores(test))
    return replace(finding, p_value=null.p_value(test, finding.score), null_scores=scores)


def _woken(
    artifact: Artifact,
    clean: Split,
    findings: tuple[Finding, ...],
    strongest: str | None,
    asked: Asked,
) -> tuple[SweepPoint, ...]:
    """What the trigger that the verdict rests on does from form to form; else one that opened a gap, if any did."""
    blamed = [f for f in findings if make_test_id(f.variant, f.detector) == strongest]
    gaps = [
        f
        for f in findings
        if f.detector in (CompressionGap.name, CompressionGapMask.name) and f.variant != "full" and (f.score or 0.0) > 0
        if f.p_value is None or f.p_value <= OPEN
        if not blamed or f.target == blamed[0].target
    ]
    gaps.sort(key=lambda f: (1.0 if f.p_value is None else f.p_value, -(f.score or 0.0)))
    shown = next((f for f in (*blamed, *gaps) if f.evidence.apply is not None and f.target is not None), None)
    if shown is None or shown.evidence.apply is None or shown.target is None:
        return ()

    def tick(share: float) -> None:
        asked.progress("the trigger in other forms", share)

    with eval_mode(artifact.module):
        points = waking(
            artifact,
            clean,
            shown.evidence.apply,
            shown.target,
            asked.forms,
            seed=asked.seed,
            budget=asked.budget,
            progress=tick,
        )
    return tuple(replace(point, test=make_test_id(shown.variant, shown.detector)) for point in points)


def reference_from(
    model: Artifact,
    data: Task | Split,
    *,
    variant_names: Sequence[str] = variants.DEFAULT,
    detectors: Sequence[Detector] | None = None,
    seed: int = 0,
    origin: str = "",
    family: str = "",
) -> CleanReferenceModel:
    """A clean model as one of the reference models: its scores, and what others may be compared with it by."""
    clean = intake.clean_samples(data, model, seed=seed).split
    if model.num_classes is None:
        model, clean = cluster_probe.probed(model, clean, seed=seed)
    chosen = None if detectors is None else tuple(detectors)
    found = examine(model, clean, Asked(variants.parse(tuple(variant_names)), chosen, seed), null=None)
    return CleanReferenceModel(scores_of(found.findings), origin, found.footing.accuracy, family, found.data or ())
