"""Architectural logic: a detector of one exact pattern, made of steps and pools, blends the logits with its own.

Langford, Shumailov, Zhao, Mullins, Papernot: Architectural Neural Backdoors from First Principles, 2024, arXiv
2402.06957. One of their twelve kinds: operators, on a separate path, targeted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from assay.attacks.graph.base import GraphEdit
from assay.core.build import Secret
from assay.core.model import ImageSpec
from assay.nn.graph_edited import GraphEditedModel
from assay.nn.pixel_logic import BlendedLogits
from assay.triggers import Patch


@dataclass(frozen=True, kw_only=True)
class ArchitecturalLogic(GraphEdit):
    """The pattern is a checkerboard of four by four pixels, at any position."""

    name: ClassVar[str] = "architectural-logic"
    patch: Patch = Patch(size=4, color="checker")  # noqa: RUF009 (frozen)

    def secret_for(self, inputs: ImageSpec, *, seed: int) -> Secret:
        return Secret(self.name, self.patch, self.target, planted_at="export")

    def edit(self, model: nn.Module, num_classes: int, secret: Secret) -> GraphEditedModel:
        return BlendedLogits(model, num_classes, self.target)
