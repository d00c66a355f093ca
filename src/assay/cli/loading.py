"""Models and data as the commands take them; every planted mark and every guess is said aloud on load."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from assay.cli.options import numbers, sizes
from assay.cli.screen import write
from assay.core.errors import UnusableInput

if TYPE_CHECKING:
    from assay.core.dataset import Task
    from assay.core.model import Artifact


NEW = "new:"
"""Before the name of an architecture, in place of a model: an untrained model of it."""


@dataclass(frozen=True)
class Described:
    """What the options say about a model, as text; None where they say nothing."""

    arch: str | None = None
    shape: str | None = None
    mean: str | None = None
    std: str | None = None
    features: bool = False
    pooling: str | None = None

    def options(self) -> dict[str, str | bool | None]:
        """The options that say it."""
        numbers = {"--arch": self.arch, "--shape": self.shape, "--mean": self.mean, "--std": self.std}
        return {**numbers, "--features": self.features or None, "--pooling": self.pooling}


def load_model(model: str, said: Described, *, notes: bool = True) -> Artifact:
    """The model, called by the path it was given as; ``notes``: say what was guessed."""
    from assay import formats

    artifact = formats.load(
        model,
        arch=said.arch,
        shape=sizes(said.shape, "--shape"),
        mean=numbers(said.mean, "--mean"),
        std=numbers(said.std, "--std"),
        features=said.features,
        pooling=said.pooling,
    )
    if artifact.planted is not None:
        write(f"{model} bears assay's mark of a planted backdoor: {artifact.planted}", style="yellow")
    if notes:
        tell(model, artifact.notes)
    return replace(artifact, name=model)


def load_data(source: str, artifact: Artifact, *, limit: int | None, seed: int, labels: bool = True) -> Task:
    """The data in the model's shape and numbering of classes."""
    from assay import data

    task = data.load(
        source,
        artifact.inputs,
        num_classes=artifact.num_classes,
        class_names=artifact.class_names,
        limit=limit,
        seed=seed,
        labels=labels,
    )
    tell(source, task.notes)
    return task


def begin(
    model: str, said: Described, data: str, *, classes: int | None = None, limit: int | None, seed: int
) -> tuple[Artifact, Task]:
    """The model to train and its data; ``new:ARCH`` is an untrained model, with ``classes`` or as many as the data has."""
    if not model.startswith(NEW):
        if classes is not None:
            raise UnusableInput(f"--classes is only for an untrained model ({NEW}ARCH): the model brings its classes")
        artifact = load_model(model, said)
        return artifact, load_data(data, artifact, limit=limit, seed=seed)
    from assay.data import load
    from assay.formats.untrained import inputs_of, untrained_model

    if said.features or said.pooling is not None:
        raise UnusableInput(f"--features and --pooling are not for an untrained model: train {model} first")
    if said.arch is not None:
        raise UnusableInput(f"--arch is not for an untrained model: {model} names its architecture")
    name = model.removeprefix(NEW)
    size = sizes(said.shape, "--shape")
    mean, std = numbers(said.mean, "--mean"), numbers(said.std, "--std")
    task = load(data, inputs_of(name, shape=size), num_classes=classes, limit=limit, seed=seed)
    names = task.class_names
    artifact = untrained_model(name, task.num_classes, shape=size, mean=mean, std=std, class_names=names, seed=seed)
    tell(model, artifact.notes)
    tell(data, task.notes)
    return replace(artifact, name=model), task


def tell(what: str, notes: tuple[str, ...]) -> None:
    """What was guessed about ``what``, a line each."""
    write(*(f"{what}: {note}" for note in notes), style="yellow")


def shown(path: Path) -> str:
    """A path as people can open it."""
    return str(path.absolute())
