"""Nets that answer with probabilities, as ones that answer with logits.

Scores are differences of logits. Of probabilities, sure nets give hardly any: 0.999 and 0.001 whatever is done to the
picture, and a trigger that moves the logits by ten is not seen.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

SUM_SLACK = 1e-3
"""How far the probabilities of a picture may be from 1 in sum: what rounding to half precision leaves."""


@final
class LogProbabilities(nn.Module):
    """The logarithm of a net's probabilities (N, K): its logits, up to a number that is the same for all classes.

    ``models.graph`` takes the softmax and the logarithm out again, so that a search has its gradients.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.training = net.training

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).clamp(min=torch.finfo(torch.float32).tiny).log()


def are_probabilities(answers: Tensor) -> bool:
    """Whether ``answers`` (N, K), what a net says of some pictures, lie in [0, 1] and have a sum of 1 each."""
    if not len(answers) or answers.shape[1] < 2:
        return False
    sums = answers.float().sum(1)
    return bool((answers >= 0).all()) and bool(((sums - 1).abs() < SUM_SLACK).all())
