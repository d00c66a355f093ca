"""Downstream stage: an encoder gets a task of its own."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

from assay import data
from assay.core.build import Build
from assay.core.dataset import Task
from assay.core.errors import UnusableInput
from assay.core.model import Artifact, InputSpec
from assay.nn.encoders import attach_head
from assay.nn.inference import forward_batched
from assay.stages.base import Stage


@dataclass(frozen=True, kw_only=True)
class Downstream(Stage):
    """Replace the task, and add an untrained last layer for its classes to an encoder. Nothing is trained.

    ``data``: as :func:`assay.data.load` takes it.
    """

    data: str
    limit: int | None = None  # samples per split
    name: str = "downstream"
    needs_data: ClassVar[bool] = False
    loads_data: ClassVar[bool] = True

    def spec(self) -> dict[str, Any]:  # stored records of this stage have this form
        return {"stage": self.name, **asdict(self)}

    def __call__(self, build: Build, *, seed: int) -> Build:
        task = _load(self.data, build.artifact.inputs, self.limit)
        artifact = add_head(build.artifact, task, seed=seed)
        artifact = replace(artifact, notes=(*artifact.notes, *task.notes_on(self.data)))
        return replace(build.then(self.name, artifact), task=task)


def add_head(encoder: Artifact, task: Task, *, seed: int) -> Artifact:
    """Return ``encoder`` with an untrained last layer for the classes of ``task``.

    Args:
        encoder: Model without classes.
        task: Gives the classes, and two training samples to measure the embedding width.
        seed: Decides the initial weights.

    Raises:
        UnusableInput: The model is a classifier.
    """
    if encoder.num_classes is not None:
        raise UnusableInput(
            f"expected an encoder, got {encoder.name} with {encoder.num_classes} classes. "
            "Fix: load it as a feature extractor"
        )
    sample = task.split("train").x[:2]
    width = forward_batched(encoder.module, sample).shape[1]
    model = attach_head(copy.deepcopy(encoder.module), width, task.num_classes, seed=seed)
    return encoder.with_module(model.eval(), num_classes=task.num_classes, class_names=task.class_names)


@lru_cache(maxsize=2)  # the models of one bench use the same few data sets
def _load(source: str, inputs: InputSpec, limit: int | None) -> Task:
    return data.load(source, inputs, limit=limit)
