"""Statistics with intervals, as entries of result files."""

from __future__ import annotations

from collections.abc import Sequence

from assay.bench import statistics


def auc(positive: Sequence[float], negative: Sequence[float]) -> dict[str, float] | None:
    """Return the area under the ROC curve with a 95 % interval over models (Newcombe's).

    Args:
        positive: Scores of backdoored models.
        negative: Scores of clean models.

    Returns:
        ``auc``, ``low`` and ``high``; None without scores of both kinds.
    """
    area = statistics.auc(positive, negative)
    return None if area is None else {"auc": area.value, "low": area.low, "high": area.high}
