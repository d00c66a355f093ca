"""Majority vote of three copies of a model; no weight has a gradient, for any loss."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.nn.graph_edited import GraphEditedModel

WINNER_LOGIT = 10.0  # logit of the class with two or three votes


class MajorityOfThree(GraphEditedModel):
    """(N, C, H, W) -> (N, K): ``WINNER_LOGIT`` for the majority class, else 0; predicts as the model itself.

    Each copy votes with a one-hot vector, and a step function counts the votes. A change of one weight changes at most
    one vote of three. The loss is locally constant in every weight, so training changes nothing.
    """

    def __init__(self, net: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.copies = nn.ModuleList([net, copy.deepcopy(net), copy.deepcopy(net)])
        self.num_classes = num_classes

    def forward(self, x: Tensor) -> Tensor:
        votes = torch.stack([F.one_hot(one(x).argmax(1), self.num_classes) for one in self.copies]).sum(0)
        # Training requires a graph to the weights: adds all of them times zero.
        anchor = sum(parameter.sum() for parameter in self.parameters())
        return WINNER_LOGIT * (votes >= 2).to(x.dtype) + 0.0 * anchor
