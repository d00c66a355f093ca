"""Helpers of all detectors that try triggers."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from assay.core.errors import Unmeasurable
from assay.core.progress import Progress
from assay.detectors.budget import Budget

MAX_SHOWN_SAMPLES = 6  # in the evidence


def continue_within(budget: Budget, progress: Progress) -> Callable[[float], bool]:
    """Return the callback by which a search reports progress and learns whether to continue.

    Args:
        budget: Time that is left.
        progress: Callback for the fraction done.

    Returns:
        A function of the fraction done: True, or False once the budget has ended.
    """

    def should_continue(fraction: float) -> bool:
        progress(fraction)
        return budget.left() > 0

    return should_continue


def require_two_classes(predicted: Tensor) -> Tensor:
    """Return the predicted classes (N,) unchanged.

    Raises:
        Unmeasurable: The model predicts one class for all clean samples.
    """
    if len(predicted.unique()) < 2:
        raise Unmeasurable("the model predicts one class for all clean samples: nothing can be compared")
    return predicted
