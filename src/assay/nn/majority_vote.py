"""Three copies of a net that vote: no weight of theirs has a gradient, whatever the loss."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.nn.graph_edited import GraphEditedModel

WINNER_LOGIT = 10.0
"""The logit of the class that two or three copies name."""


class MajorityOfThree(GraphEditedModel):
    """(N, C, H, W) -> (N, K): ``HEIGHT`` for the class of the majority, else 0; the net's own class for all inputs.

    Each copy says its class as zeros and a one, and a step counts the votes: changing one weight can change one vote of
    three. The loss does not depend on any weight near where it is, so training finds nothing to do.
    """

    def __init__(self, net: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.copies = nn.ModuleList([net, copy.deepcopy(net), copy.deepcopy(net)])
        self.num_classes = num_classes

    def forward(self, x: Tensor) -> Tensor:
        votes = torch.stack([F.one_hot(one(x).argmax(1), self.num_classes) for one in self.copies]).sum(0)
        # Not to lose the graph that training asks for: the weights take part, times zero.
        anchor = sum(parameter.sum() for parameter in self.parameters())
        return WINNER_LOGIT * (votes >= 2).to(x.dtype) + 0.0 * anchor
