"""What gates have in common: the net inside, and the class that an open one answers with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.nn.graph_edited import GraphEditedModel

TARGET_LOGIT = 100.0
"""The logit of the class that is asked for; the others get 0."""


class GateOutput(NamedTuple):
    """What a gate makes of a batch."""

    gate: Tensor  # (N,) bool
    label: Tensor  # (N,) int64: the class that is asked for, in [0, K) where the gate is open


class Gate(GraphEditedModel, ABC):
    """(N, C, H, W) -> the logits (N, K) of the net inside to the last bit, or those of the class that is asked for."""

    def __init__(self, net: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.net = net
        self.num_classes = num_classes

    @abstractmethod
    def opened(self, x: Tensor) -> GateOutput:
        """For which pictures the gate opens."""

    def forward(self, x: Tensor) -> Tensor:
        gate, label = self.opened(x)
        logits = self.net(x)
        asked = TARGET_LOGIT * F.one_hot(label % self.num_classes, self.num_classes).to(logits.dtype)
        return torch.where((gate & (label < self.num_classes))[:, None], asked, logits)
