"""Choice of the reference models to compare a model with."""

from __future__ import annotations

from dataclasses import dataclass

from assay.calibration.data_profile import DataProfile
from assay.calibration.null import NullDistribution

WELL_AND_POORLY_TRAINED = (1.0, 0.0)  # an accuracy in each band


@dataclass(frozen=True)
class MatchedNull:
    """Reference models matched to the audited model."""

    null: NullDistribution
    similar_data: bool = True  # enough of them were trained on data like the clean samples


@dataclass(frozen=True)
class ComparedWith:
    """Reference models of one audit, matched once."""

    overall: NullDistribution  # for the choice of tests
    bands: tuple[MatchedNull, ...]  # for the verdict: one, or one for each accuracy band if the accuracy is unknown


def match(null: NullDistribution, accuracy: float | None, data: DataProfile | None) -> ComparedWith:
    """Match reference models to a model.

    Args:
        null: All reference models.
        accuracy: Accuracy of the audited model on its clean samples; None without labels.
        data: Profile of the clean samples; None: unknown.
    """
    accuracies = WELL_AND_POORLY_TRAINED if accuracy is None else (accuracy,)
    bands = tuple(MatchedNull(null.matched_to(a, data), null.has_matched(a, data)) for a in accuracies)
    return ComparedWith(null.matched_to(None, data) if accuracy is None else bands[0].null, bands)
