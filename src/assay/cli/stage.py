"""``assay stage``: one step of the supply chain."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import options, outputs, screen
from assay.core.errors import UnusableInput
from assay.core.lookup import lookup

if TYPE_CHECKING:
    from pathlib import Path

    from assay.core.build import Build
    from assay.core.dataset import Task
    from assay.core.model import Artifact
    from assay.stages.base import Stage

COMPARED = 1000
"""Samples on which the int8 file is compared with its twin."""

NEEDS_NO_DATA = frozenset(
    {"prune-magnitude", "prune-2:4", "bf16", "export", "downstream", "low-bit-randomization", "smoothing", "persist"}
)
NAMES_CLASSES = frozenset({"train", "fine-tune", "linear-probe"})
"""Stages that make a classifier of an encoder."""


def stage(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="train, fine-tune, prune-magnitude, int8, export, ...")],
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model as for `assay audit`, or new:ARCH for train to begin with.")
    ],
    out: options.NeededOut,
    data: options.Data = None,
    arch: options.Arch = None,
    shape: options.Shape = None,
    mean: options.Mean = None,
    std: options.Std = None,
    features: options.Features = False,
    pooling: options.Pooling = None,
    setting: options.Settings = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
) -> int:
    """Fine-tune, prune, quantize or export a model; a mark of a planted backdoor stays."""
    outputs.check_folder(out)
    with outputs.json_output(None):
        from assay.cli.loading import NEW, Described, begin, load_model, shown
        from assay.core.build import Build
        from assay.registry import FILES

        settings, data = _settings(stage, setting or [], data, limit)
        step, said = _stage(stage, settings, out), Described(arch, shape, mean, std, features, pooling)
        if model.startswith(NEW):
            if stage != "train" or data is None:
                raise UnusableInput(f"{model}: a fresh net has to be trained first: assay stage train, with --data")
            artifact, task = begin(model, said, data, limit=limit, seed=seed)
        else:
            artifact = load_model(model, said)
            task = _task(stage, data, artifact, limit, seed)
        if not artifact.differentiable:
            raise UnusableInput(
                f"{model}: a stage needs weights in torch, which a model in {artifact.format} format has not: give the "
                "model that it was made from"
            )
        if artifact.num_classes is None and stage in NAMES_CLASSES:
            artifact = _classifier(artifact, task, seed)
        made = _made(stage, step, Build(artifact, task), seed)
        path = out / FILES[stage] if stage in FILES else _save(made, out)
        if data is not None:
            _show(task, artifact, made)
        if stage == "int8":
            _show_twin(step, Build(artifact, task), made, seed)
        screen.write(f"Written: {shown(path)}")
    return 0


def _settings(name: str, settings: list[str], data: str | None, limit: int | None) -> tuple[list[str], str | None]:
    """The settings and the data: a stage that goes on to other data gets those of --data and --limit as its own."""
    if name != "downstream" or data is None:
        return settings, data
    if any(pair.split("=")[0].strip() == "data" for pair in settings):
        raise UnusableInput("expected the data once: --data or -o data=...; came both")
    own = [f"data={data}", *([] if limit is None else [f"limit={limit}"])]
    return [*settings, *own], None


def _stage(name: str, settings: list[str], out: Path) -> Stage:
    from assay.core.config import configure
    from assay.registry import FILES, STAGES

    kind = lookup(name, STAGES, "stage")
    fixed = {"directory": str(out)} if name in FILES else {}
    return configure(kind, settings, fixed=fixed)


def _task(name: str, data: str | None, artifact: Artifact, limit: int | None, seed: int) -> Task:
    """The data, or none for the stages that look at weights only."""
    from assay.cli.loading import load_data
    from assay.core.dataset import Task

    if data is not None:
        # A probe gets the data's own classes; everything else keeps the model's.
        fitted = replace(artifact, num_classes=None, class_names=None) if name == "linear-probe" else artifact
        return load_data(data, fitted, limit=limit, seed=seed)
    if name not in NEEDS_NO_DATA:
        raise UnusableInput(f"{name} needs samples: pass some with --data")
    return Task("none", {}, artifact.class_names or tuple(map(str, range(artifact.num_classes or 0))))


def _classifier(encoder: Artifact, task: Task, seed: int) -> Artifact:
    from assay.stages.downstream import add_head

    classes = f"the {task.num_classes} classes of {task.name}"
    screen.write(f"{encoder.name} is an encoder: it gets a fresh last layer for {classes}")
    return add_head(encoder, task, seed=seed)


def _made(name: str, step: Stage, build: Build, seed: int) -> Artifact:
    """What the stage makes, with a bar: only those that train know how far they are."""
    from assay.core.progress import named
    from assay.stages.train import LinearProbe, Train

    if isinstance(step, Train | LinearProbe):
        with screen.progress(name) as told:
            return step(build, seed=seed, progress=named(told, name)).artifact
    with screen.spinner(name):
        return step(build, seed=seed).artifact


def _save(artifact: Artifact, out: Path) -> Path:
    from assay.graphs.export import save_model

    return save_model(artifact, out)


def _show_twin(step: Stage, build: Build, file: Artifact, seed: int) -> None:
    """How far the net that audits test in place of the file says what the file says."""
    from assay.attacks import plant
    from assay.graphs.export import argmax_agreement
    from assay.report.formatting import format_percent
    from assay.stages.export import ExportInt8
    from assay.stages.quantize import QuantizeInt8

    assert isinstance(step, ExportInt8)
    with screen.spinner("comparing with the twin in torch"):
        twin = QuantizeInt8(per_channel=step.per_channel, samples=step.samples)(build, seed=seed).artifact
        x = plant.test_split(build.task).x[:COMPARED]
        agreement = argmax_agreement(twin.module, file.module, x)
    screen.write(
        f"The int8 twin that audits use names the same class as the file on {format_percent(agreement)} of {len(x):,} samples"
    )


def _show(task: Task, before: Artifact, after: Artifact) -> None:
    """Accuracy before and after, where the samples have labels."""
    from assay.attacks import plant
    from assay.core.progress import named, part
    from assay.nn import metrics
    from assay.report.formatting import format_percent

    held_out = plant.test_split(task)
    if held_out.y is not None and before.num_classes == after.num_classes is not None:
        with screen.progress("measuring") as told:
            bar = named(told, "measuring")
            was = metrics.clean_accuracy(before.module, held_out, progress=part(bar, 0.0, 0.5)).value
            now = metrics.clean_accuracy(after.module, held_out, progress=part(bar, 0.5, 1.0)).value
        screen.write(
            f"Accuracy on {len(held_out):,} samples: {format_percent(was)} before, {format_percent(now)} after"
        )
