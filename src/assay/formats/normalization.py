"""Normalization of [0, 1] pixels by mean and standard deviation, as a model expects it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from assay.core.errors import UnusableInput
from assay.nn.normalized import Normalized

# Note on a model without a stated normalization.
UNKNOWN_NORMALIZATION = (
    "no source states the normalization of the images: the model gets them in [0, 1]. "
    "Fix: give mean and std if it was trained with others."
)


@dataclass(frozen=True)
class Normalization:
    """One mean and one standard deviation per channel, for pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, mean: Sequence[float] | None, std: Sequence[float] | None) -> Normalization | None:
        """Return the normalization of two lists of numbers, None if both are None.

        Args:
            mean: One mean per channel, or a single one for all channels.
            std: As many standard deviations.

        Raises:
            UnusableInput: One list is missing, or a number is unusable.
        """
        if mean is None and std is None:
            return None
        if mean is None or std is None:
            raise UnusableInput(
                f"mean and std go together: {'mean' if mean is None else 'std'} is missing. Fix: give both or neither."
            )
        try:
            values = tuple(float(m) for m in mean), tuple(float(s) for s in std)
        except (TypeError, ValueError):
            raise UnusableInput(f"expected numbers as mean and std, got {mean!r} and {std!r}") from None
        if not all(map(math.isfinite, (*values[0], *values[1]))) or min(values[1], default=0) <= 0:
            raise UnusableInput(f"expected finite means and positive standard deviations, got {mean} and {std}")
        return cls(*values)

    @classmethod
    def identity(cls, channels: int) -> Normalization:
        """Return the normalization of a model for plain [0, 1] images."""
        return cls((0.0,) * channels, (1.0,) * channels)

    def around(self, module: nn.Module, channels: int) -> Normalized:
        """Return a module with this normalization in front.

        Args:
            module: Module for normalized images (N, C, H, W).
            channels: Number of channels C.

        Raises:
            UnusableInput: The number of values does not fit the channels.
        """
        for values in (self.mean, self.std):
            if len(values) not in (1, channels):
                raise UnusableInput(
                    f"expected 1 or {channels} values of mean and std, one per channel, got {len(values)}"
                )
        return Normalized(module, self.mean, self.std)
