"""Downstream: from an encoder to a task of one's own."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from assay import data
from assay.core.build import Build
from assay.core.dataset import Task
from assay.core.errors import UnusableInput
from assay.core.model import Artifact, InputSpec
from assay.nn.encoders import attach_head
from assay.nn.inference import forward_batched


@dataclass(frozen=True, kw_only=True)
class Downstream:
    """A task of one's own for an encoder: other data, and a fresh last layer for its classes; nothing is trained yet.

    ``data``: as for ``--data``.
    """

    data: str
    limit: int | None = None  # samples a split
    name: str = "downstream"

    def spec(self) -> dict[str, Any]:
        return {"stage": self.name, **asdict(self)}

    def __call__(self, build: Build, *, seed: int) -> Build:
        task = _loaded(self.data, build.artifact.inputs, self.limit)
        artifact = classifier_for(build.artifact, task, seed=seed)
        artifact = replace(artifact, notes=(*artifact.notes, *task.notes_on(self.data)))
        return replace(build.then(self.name, artifact), task=task)


def classifier_for(encoder: Artifact, task: Task, *, seed: int) -> Artifact:
    """``encoder`` with a fresh last layer for the classes of ``task``.

    Raises UnusableInput where it names classes already.
    """
    if encoder.num_classes is not None:
        raise UnusableInput(
            f"expected an encoder; {encoder.name} names {encoder.num_classes} classes: cut it at its features"
        )
    sample = task.split("train").x[:2]
    width = forward_batched(encoder.module, sample).shape[1]
    net = attach_head(copy.deepcopy(encoder.module), width, task.num_classes, seed=seed)
    return encoder.with_module(net.eval(), num_classes=task.num_classes, class_names=task.class_names)


@lru_cache(maxsize=2)
def _loaded(source: str, inputs: InputSpec, limit: int | None) -> Task:
    """The data; the models of a bench see the same again and again."""
    return data.load(source, inputs, limit=limit)
