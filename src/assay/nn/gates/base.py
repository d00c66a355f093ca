"""Base class of gates: a wrapped model, and the logits of an open gate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.nn.graph_edited import GraphEditedModel

TARGET_LOGIT = 100.0  # logit of the requested class behind an open gate; other classes get 0


class GateOutput(NamedTuple):
    """State of a gate for a batch."""

    gate: Tensor  # (N,) bool: open
    label: Tensor  # (N,) int64: requested class, in [0, K) if the gate is open


class Gate(GraphEditedModel, ABC):
    """(N, C, H, W) -> (N, K): exactly the wrapped model's logits, or those of the requested class if the gate opens."""

    def __init__(self, net: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.net = net
        self.num_classes = num_classes

    @abstractmethod
    def evaluate_gate(self, x: Tensor) -> GateOutput:
        """Return the state of the gate for images ``x`` (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        gate, label = self.evaluate_gate(x)
        logits = self.net(x)
        requested = TARGET_LOGIT * F.one_hot(label % self.num_classes, self.num_classes).to(logits.dtype)
        return torch.where((gate & (label < self.num_classes))[:, None], requested, logits)
