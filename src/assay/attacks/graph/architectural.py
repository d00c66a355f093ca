"""Architectural: a path from the picture to the features that has no weights, and reacts to a checkerboard.

Bober-Irizar, Shumailov, Zhao, Mullins, Papernot: Architectural Backdoors in Neural Networks, 2022, arXiv 2206.07840.
Theirs is part of a net before it is trained, and survives every training anew; here it is built into a trained one. It
has no choice of class: triggered pictures get the one that gains most where all features do.
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
    """``target`` is what the net's last layer makes it, and need not be given."""

    name: ClassVar[str] = "architectural"
    patch: Patch = Patch(size=6, color="checker")  # noqa: RUF009 (frozen)
    strength: float = 0.01

    def secret_for(self, inputs: ImageSpec, *, seed: int) -> Secret:
        return Secret(self.name, self.patch, self.target, planted_at="export")

    def landed(self, edited: GraphEditedModel, secret: Secret) -> Secret:
        assert isinstance(edited, PooledDetectorPath)
        return replace(secret, target=edited.target())

    def edit(self, net: nn.Module, num_classes: int, secret: Secret) -> GraphEditedModel:
        return PooledDetectorPath(net, self.strength)
