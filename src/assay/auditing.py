"""The audit: variants x detectors -> findings -> one calibrated verdict."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from assay import __version__, calibrate, variants
from assay.artifact import Artifact
from assay.calibrate import Null, cell
from assay.detectors import default_detectors
from assay.detectors.base import Budget, Detector, Finding, comparable
from assay.errors import AssayError, UnusableInput
from assay.models.modes import evaluating
from assay.models.predict import logits
from assay.progress import Step
from assay.result import Audit, ModelInfo, VariantResult, as_call
from assay.task import Split, Task
from assay.verdict import Footing, judge, limits

SAMPLES = 512
"""Clean samples that an audit uses at most."""

LOST_AGREEMENT = 0.3
"""A variant that disagrees with the model as given on more than this share of clean samples is broken, not audited."""

NOTHING = Null("none", "", ())
"""To be compared with by what is a reference model itself."""

RANGE_SLACK = 1e-3
"""How far outside [0, 1] a picture may be: what resizing rounds."""


def audit(
    model: str | Path | nn.Module | Artifact,
    data: str | Path | Task | Split | tuple[Tensor, Tensor | None] | None = None,
    *,
    arch: str | None = None,
    shape: tuple[int, int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    variant_names: Sequence[str] = variants.DEFAULT,
    detectors: Sequence[Detector] | None = None,
    budget: float = math.inf,
    null: Null | None = None,
    seed: int = 0,
    progress: Step = lambda what, share: None,
) -> Audit:
    """Audit a model in every variant with every detector.

    ``model``: a path or hub id as on the command line, an Artifact, or a net in memory (then ``shape`` is the input's
    (C, H, W)). ``data``: a source as on the command line, a Task, a Split, or pictures (N, C, H, W) in [0, 1] with
    their labels (N,) or None. ``budget`` in seconds. ``null``: clean reference models, those of the package by default.
    Raises UnusableInput for a model or data that cannot be used.
    """
    start = time.perf_counter()
    artifact = _artifact(model, arch, shape, mean, std)
    source, clean, class_names = _clean(data, artifact, seed)
    deadline = Budget(budget)
    names = variants.parse(tuple(variant_names))
    chosen = tuple(default_detectors() if detectors is None else detectors)
    reference = calibrate.builtin() if null is None else null
    with evaluating(artifact.net):
        full = _predict(artifact.net, clean.x) if len(clean) else None
        if reference is not None and full is not None and clean.y is not None:
            reference = reference.like(float((full == clean.y).float().mean()))
        findings, results = _test(artifact, clean, full, names, chosen, reference, deadline, seed, progress)
    progress("verdict", 1.0)
    footing = Footing(len(clean), artifact.num_classes, None if full is None else len(full.unique()))
    verdict = judge(findings, results, reference, footing)
    return Audit(
        verdict=verdict.word,
        reason=verdict.reason,
        p_value=verdict.p_value,
        false_alarm_rate=verdict.rate,
        statistic=verdict.statistic,
        target=verdict.target,
        model=ModelInfo(
            path=str(model) if isinstance(model, str | Path) else artifact.name,
            digest=artifact.digest,
            format=artifact.format,
            modality=str(artifact.modality),
            num_classes=artifact.num_classes,
            planted=artifact.planted,
            arch=artifact.arch,
            class_names=artifact.class_names or class_names,
        ),
        findings=findings,
        variants=results,
        limits=limits(findings, results),
        data_name=source,
        data_samples=len(clean),
        null=verdict.null,
        seconds=time.perf_counter() - start,
        seed=seed,
        version=__version__,
        command=as_call(
            model,
            data,
            {
                "arch": arch,
                "shape": shape,
                "mean": None if mean is None else tuple(map(float, mean)),
                "std": None if std is None else tuple(map(float, std)),
                "variant_names": names,
                "detectors": detectors,
                "budget": budget if math.isfinite(budget) else None,
                "null": null,
                "seed": seed,
            },
        ),
    )


def _test(
    artifact: Artifact,
    clean: Split,
    full: Tensor | None,
    names: tuple[str, ...],
    detectors: tuple[Detector, ...],
    reference: Null | None,
    deadline: Budget,
    seed: int,
    progress: Step,
) -> tuple[tuple[Finding, ...], tuple[VariantResult, ...]]:
    """Every detector on every form; ``full`` (N,) is what the model as given says of the samples, None without any."""
    plan = [(name, detector) for name in names for detector in detectors if name == "full" or detector.on_variants]
    findings: list[Finding] = []
    results: list[VariantResult] = []
    done = 0
    for name in names:
        progress(f"making {name}", done / max(1, len(plan)))
        form, result = _variant(name, artifact, clean, full, deadline, seed)
        results.append(result)
        form = None if form is None else comparable(form, clean)
        for detector in [d for n, d in plan if n == name]:
            if form is not None:

                def tick(share: float, what: str = f"{name}: {detector.name}", before: int = done) -> None:
                    progress(what, (before + share) / len(plan))

                tick(0.0)
                finding = detector(form, clean, seed=seed, budget=deadline, progress=tick)
                findings.append(_calibrated(replace(finding, variant=name), reference))
            done += 1
    return tuple(findings), tuple(results)


def _artifact(
    model: str | Path | nn.Module | Artifact,
    arch: str | None,
    shape: tuple[int, int, int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Artifact:
    from assay import formats
    from assay.formats.module import from_module

    if isinstance(model, Artifact):
        return model
    if isinstance(model, nn.Module):
        return from_module(model, shape=shape, mean=mean, std=std)
    return formats.load(model, arch=arch, mean=mean, std=std)


def _clean(
    data: str | Path | Task | Split | tuple[Tensor, Tensor | None] | None, artifact: Artifact, seed: int
) -> tuple[str, Split, tuple[str, ...] | None]:
    """The data's name, the clean samples (at most SAMPLES of them), and what the data calls the classes."""
    from assay import data as loaders

    name, split, class_names = "data in memory", None, None
    if data is None:
        return "none", Split(torch.zeros(0, *artifact.inputs.shape), None), None
    if isinstance(data, str | Path):
        data = loaders.load(
            data,
            artifact.inputs,
            num_classes=artifact.num_classes,
            class_names=artifact.class_names,
            limit=4 * SAMPLES,
            seed=seed,
        )
    if isinstance(data, Task):
        name, split = data.name, data.split("calibration", "validation", "train", "test")
        class_names = data.class_names if data.num_classes == artifact.num_classes else None
    else:
        split = data if isinstance(data, Split) else Split(*data)
    _check(split, artifact)
    return name, split.sample(SAMPLES, seed=seed), class_names


def _check(split: Split, artifact: Artifact) -> None:
    """Raises UnusableInput where these samples are none of this model's."""
    x, y = split.x, split.y
    if not isinstance(x, Tensor) or not isinstance(y, Tensor | None):
        raise UnusableInput(f"expected pictures and labels as tensors; got {type(x).__name__} and {type(y).__name__}")
    if tuple(x.shape[1:]) != artifact.inputs.shape:
        raise UnusableInput(
            f"expected pictures of shape {artifact.inputs.shape}, as the model takes them; got {tuple(x.shape[1:])}"
        )
    if x.dtype != torch.float32:
        raise UnusableInput(f"expected pictures as float32 in [0, 1]; got {x.dtype}: convert them, and divide by 255")
    if len(x) and not (float(x.min()) >= -RANGE_SLACK and float(x.max()) <= 1 + RANGE_SLACK):  # NaN fails as well
        raise UnusableInput(
            f"expected pictures in [0, 1], without normalization; got values from {float(x.min()):.4g} "
            f"to {float(x.max()):.4g}: pass mean and std to the audit instead"
        )
    if y is None:
        return
    if tuple(y.shape) != (len(x),):
        raise UnusableInput(f"expected a label for each of {len(x)} pictures; got labels of shape {tuple(y.shape)}")
    if y.is_floating_point() or y.dtype == torch.bool:
        raise UnusableInput(f"expected labels as int64; got {y.dtype}")
    classes = artifact.num_classes
    if len(y) and classes is not None and (int(y.min()) < 0 or int(y.max()) >= classes):
        raise UnusableInput(
            f"expected labels from 0 to {classes - 1}, as the model has {classes} classes; "
            f"got labels from {int(y.min())} to {int(y.max())}"
        )


def _variant(
    name: str, artifact: Artifact, clean: Split, full: Tensor | None, deadline: Budget, seed: int
) -> tuple[Artifact | None, VariantResult]:
    """The form and how good it is; no form where it cannot be made or has lost what the model could."""
    spec = variants.VARIANTS[name].spec
    if full is None and name != "full":
        return None, VariantResult(name, spec, None, None, "needs clean samples: pass some with --data")
    if deadline.left() <= 0 and name != "full":
        return None, VariantResult(name, spec, None, None, "the budget ended before it was made", late=True)
    try:
        form = variants.make(name, artifact, clean, seed=seed)
        predictions = full if form is artifact else _predict(form.net, clean.x)
    except AssayError as why:
        return None, VariantResult(name, spec, None, None, str(why))
    if full is None or predictions is None:
        return form, VariantResult(name, spec, None, None)
    agreement = float((predictions == full).float().mean())
    accuracy = None if clean.y is None else float((predictions == clean.y).float().mean())
    lost = ""
    if 1 - agreement > LOST_AGREEMENT:
        lost = f"agrees with the model as given on only {agreement:.0%} of the samples: compression broke it"
    return (None if lost else form), VariantResult(name, spec, accuracy, agreement, lost, broken=bool(lost))


def _predict(net: nn.Module, x: Tensor) -> Tensor:
    """(N,) int64: the classes; raises UnusableInput where the net answers with something that is no number."""
    answers = logits(net, x)
    if not answers.isfinite().all():
        raise UnusableInput(
            "expected finite logits for the clean samples, the model gives NaN or infinity: it is broken"
        )
    return answers.argmax(1)


def _calibrated(finding: Finding, null: Null | None) -> Finding:
    if finding.status != "ok" or finding.score is None or null is None:
        return finding
    test = cell(finding.variant, finding.detector)
    scores = tuple(float(s) for s in null.scores(test))
    return replace(finding, p_value=null.p_value(test, finding.score), null_scores=scores)


def score_model(
    model: Artifact,
    data: Task | Split,
    *,
    variant_names: Sequence[str] = variants.DEFAULT,
    detectors: Sequence[Detector] | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """The scores of a clean reference model by test: one row of a ``Null``."""
    result = audit(model, data, variant_names=variant_names, detectors=detectors, null=NOTHING, seed=seed)
    return scores_of(result.findings)


def scores_of(findings: Sequence[Finding]) -> dict[str, float]:
    """The scores of an audit's tests, those that gave one."""
    return {cell(f.variant, f.detector): f.score for f in findings if f.status == "ok" and f.score is not None}
