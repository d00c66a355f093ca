"""Races of triggers: all of them on one sample, and only the leading ones on more.

A scan that compares classes by their best triggers needs the exact odds of few triggers only. The race follows
successive halving: Jamieson, Talwalkar: Non-stochastic Best Arm Identification and Hyperparameter Optimization, AISTATS
2016, arXiv 1502.07943.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.inversion.outlier import mean_over_others

# The first samples differ from trigger to trigger, in turn. A sample that resembles one class misleads the race only
# for that class, and only for a quarter of the triggers.
HEATS = 4


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of a race.

    Args:
        samples: Samples of each trigger after the round, including those of earlier rounds.
        triggers: Triggers that stay for each leading class; None for all triggers.
        classes: Leading classes, at least as many as the outlier score compares.
    """

    samples: int
    triggers: int | None = None
    classes: int = 8


Race = Sequence[Round]


def sample_order(triggers: int, samples: int) -> Tensor:
    """Return the order (T, N) in which each trigger gets the samples.

    The first ``HEATS`` samples rotate from trigger to trigger. After them, all triggers have the same samples.
    """
    heats = min(HEATS, samples)
    rotated = (torch.arange(triggers)[:, None] + torch.arange(heats)) % heats
    return torch.cat([rotated, torch.arange(heats, samples).expand(triggers, -1)], 1)


def ranking_odds(odds: Tensor, predicted: Tensor) -> Tensor:
    """Return the mean log odds (T, K) by which a race ranks triggers.

    All samples of a trigger may have one class as their clean prediction. They still count for the rank of that class.

    Args:
        odds: (T, N, K) log odds.
        predicted: (T, N) predicted classes of the clean samples.
    """
    measured = (predicted[..., None] != torch.arange(odds.shape[-1])).any(-2)
    return torch.where(measured, mean_over_others(odds, predicted), odds.mean(-2))


def leading_classes(means: Tensor, count: int) -> Tensor:
    """Return the at most ``count`` classes with the best triggers, by mean log odds ``means`` (T, K)."""
    return means.amax(0).topk(min(count, means.shape[1])).indices


def leading_triggers(means: Tensor, samples: Tensor, round_: Round) -> Tensor:
    """Return the indices of the triggers that stay, in ascending order.

    Only triggers with the same samples are compared.

    Args:
        means: (T, K) mean log odds.
        samples: (T, N) samples of each trigger so far.
        round_: The next round.
    """
    if round_.triggers is None:
        return torch.arange(len(means))
    classes = leading_classes(means, round_.classes)
    heats = samples.sort(1).values.unique(dim=0, return_inverse=True)[1]
    count = -(-round_.triggers // (int(heats.max()) + 1))
    stay = []
    for heat in heats.unique():
        members = (heats == heat).nonzero()[:, 0]
        best = means[members][:, classes].topk(min(count, len(members)), dim=0).indices
        stay.append(members[best].flatten())
    return torch.cat(stay).unique()
