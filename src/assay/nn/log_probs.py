"""Conversion of models with probabilities to models with logits.

Scores are differences of logits. Differences of probabilities vanish for confident models: they stay near 0.999 and
0.001, and hide a change of the logits by ten.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

SUM_TOLERANCE = 1e-3  # deviation of a sum of probabilities from 1: the rounding error of half precision


@final
class LogProbabilities(nn.Module):
    """Logarithm of a model's probabilities (N, K): its logits, up to a constant per image.

    ``graphs.fx`` replaces the softmax and the logarithm by one operator with stable gradients.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.training = net.training

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).clamp(min=torch.finfo(torch.float32).tiny).log()


def are_probabilities(outputs: Tensor) -> bool:
    """Check whether outputs (N, K) lie in [0, 1] and sum to 1 per row."""
    if not len(outputs) or outputs.shape[1] < 2:
        return False
    sums = outputs.float().sum(1)
    return bool((outputs >= 0).all()) and bool(((sums - 1).abs() < SUM_TOLERANCE).all())
