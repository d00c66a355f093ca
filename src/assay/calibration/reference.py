"""Clean reference models: their scores by test, and facts for matching."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from assay.calibration.data_profile import DataProfile

WELL_TRAINED = 0.9  # accuracy on the clean samples that separates the two accuracy bands


def make_test_id(variant: str, detector: str) -> str:
    """Return the name of one test: a detector on a variant, "variant/detector"."""
    return f"{variant}/{detector}"


def detector_of(test: str) -> str:
    """Return the detector's name out of ``make_test_id``."""
    return test.rpartition("/")[2]


class Score(NamedTuple):
    """Result of one test on one model."""

    value: float  # higher is more suspicious
    target: int | None = None  # the class that the test names; None: it names no class


@dataclass(frozen=True)
class CleanReferenceModel:
    """One clean model of a null distribution."""

    scores: Mapping[str, Score]  # by ``make_test_id``
    origin: str = ""  # one line: task, architecture, recipe
    accuracy: float | None = None  # on its clean samples
    family: str = ""  # of data: photos, digits, ...
    data: DataProfile = ()  # of its clean samples

    @cached_property
    def detectors(self) -> frozenset[str]:
        """Detectors with a score of the model, on any variant."""
        return frozenset(map(detector_of, self.scores))

    def in_accuracy_band(self, accuracy: float) -> bool:
        """Return whether the model is on the same side of ``WELL_TRAINED`` as ``accuracy``; True if unknown."""
        return self.accuracy is None or (self.accuracy >= WELL_TRAINED) == (accuracy >= WELL_TRAINED)
