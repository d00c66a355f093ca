"""Architectural: a path without weights from the image to the features, active on a checkerboard.

Bober-Irizar, Shumailov, Zhao, Mullins, Papernot: Architectural Backdoors in Neural Networks, 2022, arXiv 2206.07840.
The paper adds the path before training, and every new training keeps it; here it is added to a trained model. The
attack cannot choose the target: it is the class with the largest gain when all features grow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from assay.attacks.graph.base import GraphEdit
from assay.core.build import Secret
from assay.core.model import ImageSpec
from assay.nn.graph_edited import GraphEditedModel
from assay.nn.pixel_logic import PooledDetectorPath
from assay.triggers import Patch


@dataclass(frozen=True, kw_only=True)
class Architectural(GraphEdit):
    """Untargeted path. The last layer decides ``target``; a given value has no effect."""

    name: ClassVar[str] = "architectural"
    patch: Patch = Patch(size=6, color="checker")  # noqa: RUF009 (frozen)
    strength: float = 0.01

    def secret_for(self, inputs: ImageSpec, *, seed: int) -> Secret:
        return Secret(self.name, self.patch, self.target, planted_at="export")

    def with_resolved_target(self, edited: GraphEditedModel, secret: Secret) -> Secret:
        assert isinstance(edited, PooledDetectorPath)
        return replace(secret, target=edited.target())

    def edit(self, model: nn.Module, num_classes: int, secret: Secret) -> GraphEditedModel:
        return PooledDetectorPath(model, self.strength)
