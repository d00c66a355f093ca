"""Backdoors that are built into a finished net's computation: nothing is trained, no weight is touched."""

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
    """Needs a classifier of pictures. Its file is an ONNX graph, unless the net's own code is part of the backdoor."""

    target: int = 0
    recipe: Recipe = Recipe(epochs=0.0)  # noqa: RUF009 (frozen): nothing is trained

    @abstractmethod
    def secret_for(self, inputs: ImageSpec, *, seed: int) -> Secret:
        """The ground truth of what it plants in a net that takes ``inputs``; keys are drawn by ``seed``."""

    @abstractmethod
    def edit(self, net: nn.Module, num_classes: int, secret: Secret) -> GraphEditedModel:
        """``net``, which it takes over, with the backdoor."""

    def landed(self, edited: GraphEditedModel, secret: Secret) -> Secret:
        """``secret`` with the target that it has in ``edited``, where that is not for the attacker to choose."""
        return secret

    @final
    def check(self, split: Split, num_classes: int | None) -> None:
        """Raises UnusableInput where the attack does not fit the data or the model."""
        if num_classes is None or split.modality is not Modality.IMAGE:
            raise UnusableInput(f"{self.name} needs a model that names classes of pictures")
        channels, height, width = split.x.shape[1:]
        check_classes(self.secret_for(ImageSpec((channels, height, width)), seed=0), split, num_classes)

    @final
    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda share: None) -> Build:
        artifact = build.artifact
        self.check(build.task.split("train"), artifact.num_classes)
        assert artifact.num_classes is not None
        secret = self.secret_for(artifact.image_spec, seed=seed)
        net = self.edit(copy.deepcopy(artifact.module).eval(), artifact.num_classes, secret)
        secret = self.landed(net, secret)
        progress(1.0)
        return build.then(self.name, artifact.with_module(net.eval(), planted=planted_tag(secret)), secret)
