"""``assay stage``: one step of the supply chain."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import options, places, screen
from assay.cli.choices import chosen
from assay.errors import UnusableInput

if TYPE_CHECKING:
    from pathlib import Path

    from assay.artifact import Artifact
    from assay.stages.base import Stage
    from assay.task import Task

NEEDS_NO_DATA = frozenset({"prune-magnitude", "prune-2:4", "bf16", "export"})
ONNX = {"export": False, "int8": True}


def stage(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="train, fine-tune, prune-magnitude, int8, export, ...")],
    model: options.Model,
    out: options.NeededOut,
    data: options.Data = None,
    arch: options.Arch = None,
    setting: options.Settings = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
) -> int:
    """Fine-tune, prune, quantize or export a model; a mark of a planted backdoor stays."""
    places.check_folder(out)
    with places.answering(None):
        from assay.artifact import Build
        from assay.cli.loading import load_model, shown

        step = _stage(stage, setting or [], out)
        artifact = load_model(model, arch)
        if not artifact.differentiable:
            raise UnusableInput(f"{model}: a stage needs weights in torch, which the {artifact.format} format has not")
        task = _task(stage, data, artifact, limit, seed)
        with screen.waiting(stage):
            made = step(Build(artifact, task), seed=seed).artifact
            path = out / f"model{'-int8' * ONNX[stage]}.onnx" if stage in ONNX else _save(made, out)
        if data is not None:
            _show(task, artifact, made)
        screen.say(f"Written: {shown(path)}")
    return 0


def _stage(name: str, settings: list[str], out: Path) -> Stage:
    from assay.catalogue import STAGES
    from assay.cli.settings import configured

    kind = chosen(name, STAGES, "stage")
    fixed = {"directory": str(out), "int8": ONNX[name]} if name in ONNX else {}
    return configured(kind, settings, fixed=fixed)


def _task(name: str, data: str | None, artifact: Artifact, limit: int | None, seed: int) -> Task:
    """The data, or none for the stages that look at weights only."""
    from assay.cli.loading import load_data
    from assay.task import Task

    if data is not None:
        # A probe gets the data's own classes; everything else keeps the model's.
        fitted = replace(artifact, num_classes=None, class_names=None) if name == "linear-probe" else artifact
        return load_data(data, fitted, limit=limit, seed=seed)
    if name not in NEEDS_NO_DATA:
        raise UnusableInput(f"{name} needs samples: pass some with --data")
    return Task("none", {}, artifact.class_names or tuple(map(str, range(artifact.num_classes or 0))))


def _save(artifact: Artifact, out: Path) -> Path:
    from assay import formats

    return formats.save(artifact, out)


def _show(task: Task, before: Artifact, after: Artifact) -> None:
    """Accuracy before and after, where the samples have labels."""
    from assay import metrics, planting
    from assay.report.words import percent

    held_out = planting.test_split(task)
    if held_out.y is not None and before.num_classes == after.num_classes:
        was, now = (metrics.clean_accuracy(artifact.net, held_out).value for artifact in (before, after))
        screen.say(f"Accuracy on {len(held_out):,} samples: {percent(was)} before, {percent(now)} after")
