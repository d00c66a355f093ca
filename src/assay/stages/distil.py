"""Distillation: another net learns what a model says of the data.

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531. Labels are not used.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.core.build import Build
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.progress import Progress
from assay.formats.untrained import untrained_model
from assay.stages.base import spec_of
from assay.stages.train import Recipe, fit, needs_classes


@dataclass(frozen=True, kw_only=True)
class Distil:
    """``arch``: of the student, an untrained model; what is in the teacher's graph stays behind. On the training split."""

    arch: str = "resnet20-cifar"
    temperature: float = 2.0
    recipe: Recipe = Recipe()  # noqa: RUF009 (frozen)
    name: str = "distil"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UnusableInput(f"expected a temperature above 0; got {self.temperature:g}")

    def spec(self) -> dict[str, Any]:
        return spec_of(self)

    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda share: None) -> Build:
        teacher = build.artifact
        needs_classes(teacher)
        assert teacher.num_classes is not None
        student = untrained_model(self.arch, teacher.num_classes, seed=seed, class_names=teacher.class_names)
        if student.inputs.shape[0] != teacher.image_spec.shape[0]:
            raise UnusableInput(
                f"expected a student that takes {teacher.image_spec.shape[0]} channels; {self.arch} takes others"
            )
        net, known = copy.deepcopy(student.module), copy.deepcopy(teacher.module).eval().requires_grad_(False)
        train = build.task.split("train")
        unlabelled = Split(train.x, torch.zeros(len(train), dtype=torch.int64))

        def as_the_teacher(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            wanted = (known(x).float() / self.temperature).softmax(1)
            return F.cross_entropy(net(x).float() / self.temperature, wanted) * self.temperature**2

        fit(net, unlabelled, self.recipe, seed=seed, progress=progress, objective=as_the_teacher)
        made = replace(student, inputs=teacher.inputs, planted=teacher.planted, name=teacher.name)
        return build.then(self.name, made.with_module(net.eval()))
