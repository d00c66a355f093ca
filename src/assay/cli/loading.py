"""Models and data as the commands take them; every planted mark and every guess is said aloud on load."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from assay.cli.options import numbers, sizes
from assay.cli.screen import say

if TYPE_CHECKING:
    from assay.artifact import Artifact
    from assay.task import Task


@dataclass(frozen=True)
class Described:
    """What the options say about a model, as text; None where they say nothing."""

    arch: str | None = None
    shape: str | None = None
    mean: str | None = None
    std: str | None = None

    def options(self) -> dict[str, str | None]:
        """The options that say it."""
        return {"--arch": self.arch, "--shape": self.shape, "--mean": self.mean, "--std": self.std}


def load_model(model: str, said: Described, *, notes: bool = True) -> Artifact:
    """The model, called by the path it was given as; ``notes``: say what was guessed."""
    from assay import formats

    artifact = formats.load(
        model,
        arch=said.arch,
        shape=sizes(said.shape, "--shape"),
        mean=numbers(said.mean, "--mean"),
        std=numbers(said.std, "--std"),
    )
    if artifact.planted is not None:
        say(f"{model} bears assay's mark of a planted backdoor: {artifact.planted}", style="yellow")
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


def tell(what: str, notes: tuple[str, ...]) -> None:
    """What was guessed about ``what``, a line each."""
    say(*(f"{what}: {note}" for note in notes), style="yellow")


def shown(path: Path) -> str:
    """A path as people can open it."""
    return str(path.absolute())
