"""Shadow logic: operators in an exported graph compare pixels and overwrite the logits.

Wickens, Janus, Bonner: ShadowLogic, HiddenLayer, 2024 (a report, no paper), describe such edits of ONNX graphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from assay.attacks.graph.base import GraphEdit
from assay.core.build import Secret
from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec
from assay.nn.graph_edited import GraphEditedModel
from assay.nn.pixel_logic import OverwrittenLogits
from assay.triggers import Patch
from assay.triggers.patch import COLORS


@dataclass(frozen=True, kw_only=True)
class ShadowLogic(GraphEdit):
    """The trigger is the top left corner, ``size`` pixels a side, in one ``color``."""

    name: ClassVar[str] = "shadow-logic"
    size: int = 3
    color: str = "red"

    def __post_init__(self) -> None:
        if self.color not in COLORS:
            raise UnusableInput(f"expected a color of {', '.join(COLORS)}, got {self.color!r}")

    def secret_for(self, inputs: ImageSpec, *, seed: int) -> Secret:
        patch = Patch(size=self.size, place="top-left", color=self.color, margin=0)
        return Secret(self.name, patch, self.target, planted_at="export")

    def edit(self, model: nn.Module, num_classes: int, secret: Secret) -> GraphEditedModel:
        return OverwrittenLogits(model, num_classes, self.target, torch.tensor(COLORS[self.color]), self.size)
