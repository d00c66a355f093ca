"""Values with 95 % intervals, and thresholds from scores of clean models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import t as student

from assay.nn.metrics import Z_95, wilson

EPSILON = 1e-9  # against rounding errors


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, over ``n`` models. Models of one training run count once."""

    value: float
    low: float
    high: float
    n: int


def auc(positive: Sequence[float], negative: Sequence[float], *, independent: int | None = None) -> Estimate | None:
    """Return the area under the ROC curve, with ties counted half.

    The interval keeps its width for groups without overlap. A bootstrap would have no width. Newcombe: Confidence
    intervals for an effect size measure based on the Mann-Whitney statistic, part 2, Statistics in Medicine 25, 2006
    (his method 5).

    Args:
        positive: scores of backdoored models.
        negative: scores of clean models.
        independent: number of independent models in ``negative``; None: all.

    Returns:
        None if a group is empty.
    """
    if not positive or not negative:
        return None
    p, n = np.array(positive), np.array(negative)
    area = float(((p[:, None] > n) + 0.5 * (p[:, None] == n)).mean())
    count = len(n) if independent is None else independent

    def excess(value: float) -> float:
        """Positive if ``area`` is outside of the sampling error around a true area of ``value``."""
        half = (len(p) + count) / 2 - 1
        spread = 1 + half * (1 - value) / (2 - value) + half * value / (1 + value)
        return (area - value) ** 2 - Z_95**2 * value * (1 - value) * spread / (len(p) * count)

    low = brentq(excess, 0.0, area - EPSILON) if area > EPSILON else 0.0
    high = brentq(excess, area + EPSILON, 1.0) if area < 1 - EPSILON else 1.0
    return Estimate(area, low, high, len(p))


def fraction(hits: int, total: int, independent: int | None = None) -> Estimate | None:
    """Return ``hits / total`` with Wilson's interval; None if ``total`` is 0.

    Args:
        hits: number of models with the property.
        total: number of models.
        independent: number of independent models among them; None: all.
    """
    if not total:
        return None
    value, count = hits / total, total if independent is None else independent
    return Estimate(value, *wilson(value * count, count), count)


def fraction_of(hits: Sequence[bool], independent: int | None = None) -> Estimate | None:
    """Return the fraction of true values, as ``fraction`` does."""
    return fraction(sum(hits), len(hits), independent)


def mean_rate(rates: Sequence[Mapping[str, Any]]) -> Estimate | None:
    """Return the mean of rates over models, with Student's interval; None if there are none.

    The interval is never narrower than the samples behind the rates allow. A single model keeps Wilson's interval. A
    bootstrap over three models contains the true mean in 74 of 100 cases, over two in 51.
    """
    if not rates:
        return None
    if len(rates) == 1:
        low, high = rates[0]["interval"]
        return Estimate(rates[0]["value"], low, high, 1)
    values, count = np.array([rate["value"] for rate in rates]), len(rates)
    half_widths = np.array([(rate["interval"][1] - rate["interval"][0]) / 2 for rate in rates])
    between = float(student.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count))
    half = max(between, float(np.sqrt((half_widths**2).sum())) / count)
    mean = float(values.mean())
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), count)


def threshold(clean: Sequence[float], rate: float) -> float | None:
    """Return the smallest clean score with at most a fraction ``rate`` of further clean models above it (conformal).

    Args:
        clean: scores of clean models.
        rate: false-alarm rate in (0, 1).

    Returns:
        None if there are fewer clean models than the rate requires: 1 / rate - 1.
    """
    allowed = int(rate * (len(clean) + 1) + EPSILON)
    return sorted(clean, reverse=True)[allowed - 1] if allowed else None
