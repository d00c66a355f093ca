"""Distillation stage: an untrained student learns the outputs of the model.

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531. Labels are not used.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.core.build import Build
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.progress import Progress
from assay.formats.untrained import untrained_model
from assay.stages.base import TrainingStage
from assay.stages.train import FitOptions, Recipe, fit, require_classifier


@dataclass(frozen=True, kw_only=True)
class Distil(TrainingStage):
    """Train an untrained student of architecture ``arch`` on the outputs of the model, on the training split.

    The student has none of the teacher's graph.
    """

    arch: str = "resnet20-cifar"
    temperature: float = 2.0
    recipe: Recipe = Recipe()  # noqa: RUF009 (frozen)
    name: str = "distil"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UnusableInput(f"expected a temperature above 0, got {self.temperature:g}")

    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda fraction: None) -> Build:
        teacher = build.artifact
        require_classifier(teacher)
        assert teacher.num_classes is not None
        student = untrained_model(self.arch, teacher.num_classes, seed=seed, class_names=teacher.class_names)
        channels = teacher.image_spec.shape[0]
        if student.inputs.shape[0] != channels:
            raise UnusableInput(
                f"expected a student architecture with {channels} input channels, "
                f"got {self.arch} with {student.inputs.shape[0]}"
            )
        model, frozen = copy.deepcopy(student.module), copy.deepcopy(teacher.module).eval().requires_grad_(False)
        train = build.task.split("train")
        unlabelled = Split(train.x, torch.zeros(len(train), dtype=torch.int64))

        def distillation_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            soft_labels = (frozen(x).float() / self.temperature).softmax(1)
            return F.cross_entropy(model(x).float() / self.temperature, soft_labels) * self.temperature**2

        options = FitOptions(objective=distillation_loss)
        fit(model, unlabelled, self.recipe, seed=seed, progress=progress, options=options)
        trained = replace(student, inputs=teacher.inputs, planted=teacher.planted, name=teacher.name)
        return build.then(self.name, trained.with_module(model.eval()))
