"""Models and data as the commands take them; every planted mark is said aloud on load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from assay.cli.options import numbers
from assay.cli.screen import say

if TYPE_CHECKING:
    from assay.artifact import Artifact
    from assay.task import Task


def load_model(model: str, arch: str | None, *, mean: str | None = None, std: str | None = None) -> Artifact:
    """The model, called by the path it was given as."""
    from dataclasses import replace

    from assay import formats

    artifact = formats.load(model, arch=arch, mean=numbers(mean, "--mean"), std=numbers(std, "--std"))
    if artifact.planted is not None:
        say(f"{model} bears assay's mark of a planted backdoor: {artifact.planted}", style="yellow")
    return replace(artifact, name=model)


def load_data(source: str, artifact: Artifact, *, limit: int | None, seed: int) -> Task:
    """The data in the model's shape and numbering of classes."""
    from assay import data

    return data.load(
        source,
        artifact.inputs,
        num_classes=artifact.num_classes,
        class_names=artifact.class_names,
        limit=limit,
        seed=seed,
    )


def shown(path: Path) -> str:
    """A path as people can open it."""
    return str(path.absolute())
