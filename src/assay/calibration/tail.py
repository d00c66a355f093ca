"""Fitted tail of one test's null distribution: a common scale for the scores of all tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

TAIL_QUANTILE = 0.8  # of a test's null scores: the tail is fitted above it
MIN_TAIL_SCORES = 5  # scores above that quantile; no tail is fitted to fewer
TAIL_START = -math.log(1 - TAIL_QUANTILE)  # surprisal (-log p) at the tail quantile


class Tail:
    """Empirical distribution of a test's null scores, with an exponential tail above ``TAIL_QUANTILE``.

    The fitted tail only puts tests on one scale. The p-value of the verdict is the empirical one of the combined
    statistic.
    Clean models often score nothing, and then fewer than ``MIN_TAIL_SCORES`` scores lie above the quantile. In that
    case the scale is the largest of the detector's scales over all variants: the detector has one unit for all.
    """

    def __init__(self, null: np.ndarray, variants: Sequence[np.ndarray] = ()) -> None:
        """Fit the tail.

        Args:
            null: Scores (n,) of the clean reference models on this test.
            variants: Scores of the same detector on each variant, ``null`` included; empty: ``null`` alone.
        """
        self.sorted = np.sort(null)
        self.start = float(np.quantile(null, TAIL_QUANTILE))
        enough = (null > self.start).sum() >= MIN_TAIL_SCORES
        fitted = [null] if enough or not variants else variants
        spread = max(float(np.quantile(scores, TAIL_QUANTILE) - np.median(scores)) for scores in fitted)
        # The two other terms keep the scale above zero where the fit gives zero.
        self.scale = max(*(_mean_excess(scores) for scores in fitted), 0.1 * spread, 1e-6)

    def surprisal(self, score: float) -> float:
        """Return -log of the probability that a clean model scores at least ``score``."""
        if score > self.start:
            return TAIL_START + (score - self.start) / self.scale
        rank = len(self.sorted) - np.searchsorted(self.sorted, score, side="left")
        return -math.log((1 + rank) / (1 + len(self.sorted)))


def _mean_excess(null: np.ndarray) -> float:
    """Return the mean excess of an exponential tail above the quantile; 0 for too few scores.

    The estimate is the larger of two: from the median excess, and from the second largest excess. Some tests have
    heavier tails than the median shows. The mean and the largest excess are not used: the audited model is among the
    scores, and a single outlier would stretch its own scale.
    """
    start = np.quantile(null, TAIL_QUANTILE)
    excess = np.sort(null[null > start] - start)
    if len(excess) < MIN_TAIL_SCORES:
        return 0.0
    second_largest = sum(1 / rank for rank in range(2, len(excess) + 1))  # its expectation, in mean excesses
    return max(float(np.median(excess)) / math.log(2), float(excess[-2]) / second_largest)
