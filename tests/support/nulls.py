"""Reference models for tests, from their scores alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from assay.calibration.null import Null, Reference, Score, cell
from assay.detectors import LatentShift, NeuralCleanse, UniversalPerturbation


def scores_of(row: Mapping[str, float]) -> dict[str, Score]:
    """Of tests that name no class."""
    return {test: Score(value) for test, value in row.items()}


def null_of_rows(rows: Iterable[Mapping[str, float]]) -> Null:
    return Null("toys", "made for a test", tuple(Reference(scores_of(row)) for row in rows))


TOY_DETECTORS = (LatentShift(), NeuralCleanse(), UniversalPerturbation())


def null_of(models: int = 120) -> Null:
    """What toys without a backdoor score: more or less nothing."""
    scores = 0.1 * np.abs(np.random.default_rng(0).normal(size=(models, len(TOY_DETECTORS))))
    rows = [{cell("full", d.name): float(s) for d, s in zip(TOY_DETECTORS, row, strict=True)} for row in scores]
    return null_of_rows(rows)
