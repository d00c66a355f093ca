"""Outlier scores of classes, for any measure of reachability."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.core.errors import Unfinished

# Up to three classes may be backdoored together: the gap may follow the first, second or third class.
MAX_BACKDOORED_CLASSES = 3


def outlier_score(reachability: Tensor) -> float:
    """Return the largest gap between neighbors among the most reachable classes.

    Classes of a clean model differ too: by much on one task, by little on another. The distance to the median therefore
    depends on the task as much as on the model. Neighbors are close on all tasks.

    Args:
        reachability: (K,) reachability of each class on a log scale, in any order.

    Returns:
        Score of at least 0.
    """
    top = reachability.sort(descending=True).values[: MAX_BACKDOORED_CLASSES + 1]
    return float((top[:-1] - top[1:]).max()) if len(top) > 1 else 0.0


def refuse_nan(values: Tensor) -> Tensor:
    """Check ``values`` (outputs, odds or gradients) for NaN, and return them unchanged.

    Raises:
        Unfinished: The model output NaN. Such outputs are no evidence for or against a backdoor.
    """
    if values.isnan().any():
        raise Unfinished("expected finite outputs on triggered images, got NaN or infinity: the search has no result")
    return values


def log_odds(logits: Tensor) -> Tensor:
    """Return log p / (1 - p) of every class, within about +-35, for logits (N, K).

    Log-probabilities saturate at 0, and do not separate a class with a small lead from a class with a large one.
    """
    likelihood = logits.double().log_softmax(1)
    return (likelihood - (-likelihood.expm1()).clamp(min=1e-15).log()).clamp(min=-35).float()


def mean_over_others(values: Tensor, predicted: Tensor) -> Tensor:
    """Return the mean over the images of other classes, for each class.

    An image of the class itself gives no information about the trigger.

    Args:
        values: (..., N, K) values of N images.
        predicted: (N,) or (..., N) predicted classes of the clean images.

    Returns:
        (..., K) means.
    """
    counts = (predicted[..., None] != torch.arange(values.shape[-1])).to(values)
    return (values * counts).sum(-2) / counts.sum(-2).clamp(min=1)
