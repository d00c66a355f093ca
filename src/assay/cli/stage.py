"""``assay stage``: one step of the supply chain."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import options, outputs, screen
from assay.core.errors import UnusableInput
from assay.core.lookup import lookup

if TYPE_CHECKING:
    from assay.core.build import Build
    from assay.core.dataset import Task
    from assay.core.model import Artifact
    from assay.core.options import ModelOptions
    from assay.stages.base import Stage

COMPARED_SAMPLES = 1000  # for the comparison of the int8 file with the int8 variant


def stage(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="train, fine-tune, prune-magnitude, int8, export, ...")],
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model as in `assay audit`; for train also new:ARCH, untrained.")
    ],
    out: options.NeededOut,
    data: options.Data = None,
    arch: options.Arch = None,
    shape: options.Shape = None,
    mean: options.Mean = None,
    std: options.Std = None,
    features: options.Features = False,
    pooling: options.Pooling = None,
    output: options.Output = None,
    setting: options.Settings = None,
    label_column: options.LabelColumn = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
) -> int:
    """Train, fine-tune, prune, quantize or export a model. The mark of a planted backdoor stays."""
    outputs.check_folder(out)
    with outputs.json_output(None):
        from assay.cli.loading import shown
        from assay.core.config import configure
        from assay.registry import STAGES
        from assay.stages.export import ExportInt8
        from assay.stages.save import save_model

        kind = lookup(stage, STAGES, "stage")
        if label_column is not None and (kind.loads_data or data is None):
            raise UnusableInput(f"--label-column is for stages that take labelled data with --data; {stage} does not")
        settings, data = _settings(kind, setting or [], data, limit)
        fixed = {} if kind.file_name is None else {"directory": str(out)}
        step = configure(kind, settings, fixed=fixed)
        model_options = options.model_options(arch, shape, mean, std, features, pooling, output)
        build = _load(kind, stage, model, model_options, (data, label_column), limit, seed)
        result = _run(stage, step, build, seed)
        path = save_model(result, out) if kind.file_name is None else out / kind.file_name
        if data is not None:
            _show_accuracy(build, result)
        if isinstance(step, ExportInt8):
            _show_agreement(step, build, result, seed)
        screen.write(f"Written: {shown(path)}")
    return 0


def _settings(
    kind: type[Stage], settings: list[str], data: str | None, limit: int | None
) -> tuple[list[str], str | None]:
    """Return the settings and the data. A data-loading stage gets --data and --limit as settings."""
    if not kind.loads_data or data is None:
        return settings, data
    if any(pair.split("=")[0].strip() == "data" for pair in settings):
        raise UnusableInput("expected the data once, got --data and -o data=... Fix: leave one of them out.")
    own = [f"data={data}", *([] if limit is None else [f"limit={limit}"])]
    return [*settings, *own], None


def _load(
    kind: type[Stage],
    name: str,
    model: str,
    model_options: ModelOptions,
    source: tuple[str | None, str | None],
    limit: int | None,
    seed: int,
) -> Build:
    """Return the model and its data, with a new last layer if the stage needs one.

    Args:
        kind: The stage.
        name: Its name.
        model: Path or hub id of the model.
        model_options: Loading options of the model.
        source: The data, and the column of its labels.
        limit: Most samples of a split.
        seed: Seed of the random choice.
    """
    from assay.cli.loading import NEW, begin, load_model
    from assay.core.build import Build

    data, label_column = source

    if model.startswith(NEW):
        if not kind.starts_untrained or data is None:
            raise UnusableInput(
                f"{model}: expected a trained model, got an untrained one. Fix: use `assay stage train` and --data."
            )
        artifact, task = begin(model, model_options, data, limit=limit, seed=seed, label_column=label_column)
    else:
        artifact = load_model(model, model_options)
        task = _task(name, kind, source, artifact, limit, seed)
    if not artifact.differentiable:
        raise UnusableInput(
            f"{model}: expected a model with weights in torch, got one in {artifact.format} format. "
            "Fix: give the original model."
        )
    if artifact.num_classes is None and kind.adds_head:
        artifact = _add_head(artifact, task, seed)
    return Build(artifact, task)


def _task(
    name: str,
    kind: type[Stage],
    source: tuple[str | None, str | None],
    artifact: Artifact,
    limit: int | None,
    seed: int,
) -> Task:
    """Return the data, or an empty task for a stage without data."""
    from assay.cli.loading import load_data
    from assay.core.dataset import Task

    data, label_column = source

    if data is not None:
        # A new head has the classes of the data. All other stages keep those of the model.
        accepting = replace(artifact, num_classes=None, class_names=None) if kind.replaces_head else artifact
        return load_data(data, accepting, limit=limit, seed=seed, label_column=label_column)
    if kind.needs_data:
        raise UnusableInput(f"{name}: expected samples, got none. Fix: give some with --data.")
    return Task("none", {}, artifact.class_names or tuple(map(str, range(artifact.num_classes or 0))))


def _add_head(encoder: Artifact, task: Task, seed: int) -> Artifact:
    from assay.stages.downstream import add_head

    classes = f"the {task.num_classes} classes of {task.name}"
    screen.write(f"{encoder.name} is an encoder: it gets an untrained last layer for {classes}")
    return add_head(encoder, task, seed=seed)


def _run(name: str, step: Stage, build: Build, seed: int) -> Artifact:
    """Run a stage with a progress bar. Only training stages report their progress."""
    from assay.core.progress import named
    from assay.stages.base import TrainingStage

    if isinstance(step, TrainingStage):
        with screen.progress(name) as progress:
            return step(build, seed=seed, progress=named(progress, name)).artifact
    with screen.spinner(name):
        return step(build, seed=seed).artifact


def _show_agreement(step: Stage, build: Build, file: Artifact, seed: int) -> None:
    """Show the agreement of the int8 file with the int8 variant of audits."""
    from assay.attacks import plant
    from assay.graphs.export import argmax_agreement
    from assay.report.formatting import format_percent
    from assay.stages.export import ExportInt8
    from assay.stages.quantize import QuantizeInt8

    assert isinstance(step, ExportInt8)
    with screen.spinner("comparing with the int8 variant in torch"):
        variant = QuantizeInt8(per_channel=step.per_channel, samples=step.samples)(build, seed=seed).artifact
        x = plant.held_out_split(build.task).x[:COMPARED_SAMPLES]
        agreement = argmax_agreement(variant.module, file.module, x)
    screen.write(
        f"The int8 variant of audits predicts the same class as the file on {format_percent(agreement)} "
        f"of {len(x):,} samples"
    )


def _show_accuracy(build: Build, after: Artifact) -> None:
    """Show the accuracy before and after the stage, if the samples have labels."""
    from assay.attacks import plant
    from assay.core.progress import named, part
    from assay.nn import metrics
    from assay.report.formatting import format_percent

    before, held_out = build.artifact, plant.held_out_split(build.task)
    if held_out.y is not None and before.num_classes == after.num_classes is not None:
        with screen.progress("measuring") as progress:
            bar = named(progress, "measuring")
            old = metrics.clean_accuracy(before.module, held_out, progress=part(bar, 0.0, 0.5)).value
            new = metrics.clean_accuracy(after.module, held_out, progress=part(bar, 0.5, 1.0)).value
        screen.write(
            f"Accuracy on {len(held_out):,} samples: {format_percent(old)} before, {format_percent(new)} after"
        )
