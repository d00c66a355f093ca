"""How far one class stands out from the others, whatever it is that classes are compared by."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_BACKDOORED_CLASSES = 3
"""A few classes may be backdoored together: the gap may lie behind the first, second or third."""


def outlier_score(ease: Tensor) -> float:
    """The largest gap between neighbours among the easiest classes; ``ease`` (K,) on a log scale, in any order.

    Classes of a clean net differ too, by much on one task and little on another, so the distance to the median says as
    much about the task as about the net. Neighbours are close on all of them.
    """
    top = ease.sort(descending=True).values[: MAX_BACKDOORED_CLASSES + 1]
    return float((top[:-1] - top[1:]).max()) if len(top) > 1 else 0.0


def log_odds(logits: Tensor) -> Tensor:
    """(N, K) logits -> log p / (1 - p) of every class, within about +-35.

    A log-probability stops at 0: it does not tell a class that is just ahead from one that nothing else comes near.
    """
    likelihood = logits.double().log_softmax(1)
    return (likelihood - (-likelihood.expm1()).clamp(min=1e-15).log()).clamp(min=-35).float()


def mean_over_others(values: Tensor, before: Tensor) -> Tensor:
    """(..., N, K) values of N pictures -> (..., K): the mean over the pictures that are not of the class already.

    ``before`` (N,) is what the net says of the clean pictures: one that has the class says nothing about a trigger.
    """
    counts = (before[:, None] != torch.arange(values.shape[-1])).to(values)
    return (values * counts).sum(-2) / counts.sum(-2).clamp(min=1)
