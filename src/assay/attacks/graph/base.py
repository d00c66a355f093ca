"""Base class of graph edits: backdoors in the computation of a finished model, without training."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import dataclass
from typing import final

from torch import nn

from assay.attacks.base import Attack, check_classes, planted_tag
from assay.core.build import Build, Secret
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec, Modality
from assay.core.progress import Progress
from assay.nn.graph_edited import GraphEditedModel
from assay.stages.train import Recipe


@dataclass(frozen=True, kw_only=True)
class GraphEdit(Attack):
    """Attack on image classifiers without any change of weights.

    The edited model is saved as an ONNX graph, unless its Python code is part of the backdoor.
    """

    target: int = 0
    recipe: Recipe = Recipe(epochs=0.0)  # noqa: RUF009 (frozen): no training

    @abstractmethod
    def secret_for(self, inputs: ImageSpec, *, seed: int) -> Secret:
        """Return the ground truth of the backdoor in a model with these ``inputs``; ``seed`` decides the key."""

    @abstractmethod
    def edit(self, model: nn.Module, num_classes: int, secret: Secret) -> GraphEditedModel:
        """Return the model with the backdoor.

        Args:
            model: A copy of the model in eval mode; becomes part of the result.
            num_classes: Classes of the model.
            secret: Ground truth of the backdoor.
        """

    def with_resolved_target(self, edited: GraphEditedModel, secret: Secret) -> Secret:
        """Return ``secret`` with the actual target class; attacks without a choice override this."""
        return secret

    @final
    def check(self, split: Split, num_classes: int | None) -> None:
        if num_classes is None or split.modality is not Modality.IMAGE:
            raise UnusableInput(f"expected an image classifier for {self.name}, got another kind of model")
        channels, height, width = split.x.shape[1:]
        check_classes(self.secret_for(ImageSpec((channels, height, width)), seed=0), split, num_classes)

    @final
    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda fraction: None) -> Build:
        artifact = build.artifact
        self.check(build.task.split("train"), artifact.num_classes)
        assert artifact.num_classes is not None
        secret = self.secret_for(artifact.image_spec, seed=seed)
        edited = self.edit(copy.deepcopy(artifact.module).eval(), artifact.num_classes, secret)
        secret = self.with_resolved_target(edited, secret)
        progress(1.0)
        return build.then(self.name, artifact.with_module(edited.eval(), planted=planted_tag(secret)), secret)
