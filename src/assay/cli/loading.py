"""Loading of models and data for the commands. Each planted mark and each guess is printed on load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from assay.cli.screen import write
from assay.core.errors import UnusableInput
from assay.core.options import ModelOptions
from assay.kinds import first_look

if TYPE_CHECKING:
    from assay.core.dataset import Task
    from assay.core.model import Artifact

NEW = "new:"  # prefix of an architecture in place of a model: an untrained model


def load_model(model: str, options: ModelOptions, *, notes: bool = True, base: str | None = None) -> Artifact:
    """Load a model, with its path as its name.

    Args:
        model: A path or hub id.
        options: Loading options of the model.
        notes: Print the guesses.
        base: Base model of an adapter.
    """
    first_look(model, options, base=base is not None)  # a refusal costs no import of torch

    from assay import formats

    artifact = formats.load(model, **options.as_keywords(), base=base)
    if artifact.planted is not None:
        write(f"{model} has assay's mark of a planted backdoor: {artifact.planted}", style="yellow")
    if notes:
        tell(model, artifact.notes)
    return replace(artifact, name=model)


def load_data(
    source: str,
    artifact: Artifact,
    *,
    limit: int | None,
    seed: int,
    labels: bool = True,
    label_column: str | None = None,
) -> Task:
    """Load data in the model's input shape and with the model's class numbers.

    Args:
        source: Source of the data, as for the option.
        artifact: The model.
        limit: Most samples of a split; None: all.
        seed: Seed of the random choice.
        labels: False: the data have no labels.
        label_column: Column of the labels; None: a usual name.
    """
    from assay import data

    task = data.load(
        source,
        artifact.inputs,
        num_classes=artifact.num_classes,
        class_names=artifact.class_names,
        limit=limit,
        seed=seed,
        labels=labels,
        label_column=label_column,
    )
    tell(source, task.notes)
    return task


def begin(
    model: str,
    options: ModelOptions,
    data: str,
    *,
    classes: int | None = None,
    limit: int | None,
    seed: int,
    label_column: str | None = None,
) -> tuple[Artifact, Task]:
    """Load a model to train and its data.

    Args:
        model: A path or hub id, or ``new:ARCH`` for an untrained model.
        options: Loading options of the model.
        data: Source of the data.
        classes: Classes of an untrained model; None: as many as the data have.
        limit: Most samples of a split; None: all.
        seed: Seed of the random choice and of the untrained weights.
        label_column: Column of the labels; None: a usual name.

    Raises:
        UnusableInput: An option does not apply to this model.
    """
    if not model.startswith(NEW):
        if classes is not None:
            raise UnusableInput(f"--classes is only for an untrained model ({NEW}ARCH): the model has its classes")
        artifact = load_model(model, options)
        return artifact, load_data(data, artifact, limit=limit, seed=seed, label_column=label_column)
    from assay.data import load
    from assay.formats.untrained import inputs_of, untrained_model

    if options.features or options.pooling is not None:
        raise UnusableInput(f"--features and --pooling are not for an untrained model: train {model} first")
    if options.output is not None:
        raise UnusableInput(f"--output is not for an untrained model: {model} has one output")
    if options.arch is not None:
        raise UnusableInput(f"--arch is not for an untrained model: {model} names its architecture")
    name = model.removeprefix(NEW)
    inputs = inputs_of(name, shape=options.shape)
    task = load(data, inputs, num_classes=classes, limit=limit, seed=seed, label_column=label_column)
    artifact = untrained_model(
        name,
        task.num_classes,
        shape=options.shape,
        mean=options.mean,
        std=options.std,
        class_names=task.class_names,
        seed=seed,
    )
    tell(model, artifact.notes)
    tell(data, task.notes)
    return replace(artifact, name=model), task


def tell(subject: str, notes: tuple[str, ...]) -> None:
    """Print notes on ``subject``, one a line."""
    write(*(f"{subject}: {note}" for note in notes), style="yellow")


def shown(path: Path) -> str:
    """Return a path for people to open."""
    return str(path.absolute())
