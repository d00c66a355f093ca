"""Null distributions for tests, from scores alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from assay.calibration.null import NullDistribution
from assay.calibration.reference import CleanReferenceModel, Score, make_test_id
from assay.detectors import LatentShift, NeuralCleanse, UniversalPerturbation


def scores_of(row: Mapping[str, float]) -> dict[str, Score]:
    """Return scores of tests without a class."""
    return {test: Score(value) for test, value in row.items()}


def null_of_rows(rows: Iterable[Mapping[str, float]]) -> NullDistribution:
    return NullDistribution("toys", "made for a test", tuple(CleanReferenceModel(scores_of(row)) for row in rows))


TOY_DETECTORS = (LatentShift(), NeuralCleanse(), UniversalPerturbation())


def null_of(models: int = 120) -> NullDistribution:
    """Return a null of toy models without a backdoor: scores near zero."""
    scores = 0.1 * np.abs(np.random.default_rng(0).normal(size=(models, len(TOY_DETECTORS))))
    rows = [{make_test_id("full", d.name): float(s) for d, s in zip(TOY_DETECTORS, row, strict=True)} for row in scores]
    return null_of_rows(rows)
