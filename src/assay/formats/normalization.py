"""Mean and standard deviation that a net expects its [0, 1] pixels to be normalized with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from assay.core.errors import UnusableInput
from assay.nn.architectures import Normalized

AS_IT_IS = (
    "nothing says how the pictures are normalized: the net gets them in [0, 1] as they are; "
    "give --mean and --std if it was trained on others"
)


@dataclass(frozen=True)
class Normalization:
    """One mean and one standard deviation a channel, for pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, mean: Sequence[float] | None, std: Sequence[float] | None) -> Normalization | None:
        """Both or neither must be given; a single value stands for every channel."""
        if mean is None and std is None:
            return None
        if mean is None or std is None:
            raise UnusableInput(
                f"--mean and --std go together: {'mean' if mean is None else 'std'} is missing; give both or neither"
            )
        try:
            values = tuple(float(m) for m in mean), tuple(float(s) for s in std)
        except (TypeError, ValueError):
            raise UnusableInput(f"expected numbers as mean and std, came {mean!r} and {std!r}") from None
        if not all(map(math.isfinite, (*values[0], *values[1]))) or min(values[1], default=0) <= 0:
            raise UnusableInput(f"expected finite means and positive standard deviations, came {mean} and {std}")
        return cls(*values)

    @classmethod
    def identity(cls, channels: int) -> Normalization:
        """The normalization of a net that takes [0, 1] as it is."""
        return cls((0.0,) * channels, (1.0,) * channels)

    def around(self, net: nn.Module, channels: int) -> Normalized:
        """``net`` with this normalization in front; raises where the number of channels does not fit."""
        for values in (self.mean, self.std):
            if len(values) not in (1, channels):
                raise UnusableInput(
                    f"expected mean and std of 1 or {channels} values, one a channel, came {len(values)}"
                )
        return Normalized(net, self.mean, self.std)
