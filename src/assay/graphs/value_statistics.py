"""Statistics of the intermediate values of a model, by sample and channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

MAX_ROW_ELEMENTS = 8192  # elements of one sample for the statistics of one value; of larger values, every n-th
SAME_ROWS = 0.01  # difference of two projected rows, as a fraction of the largest, up to which they are the same
# Stands for NaN in the statistics, so that NaN equals NaN and differs from every number.
NAN_MARK = -12_345.678
LARGEST = 1e25  # larger numbers count as this one, so that sums of squares stay finite


class BatchAxis(NamedTuple):
    """Place of the samples in a value: an axis of N times ``inner`` elements."""

    axis: int
    inner: int


Measure = Callable[[Tensor, BatchAxis | Literal["none"], int], tuple[Tensor | None, Tensor | None]]


def find_axis(one: tuple[int, ...], three: tuple[int, ...]) -> BatchAxis | Literal["none", "other"]:
    """Return the axis that is three times as long for three samples as for one."""
    if one == three:
        return "none"
    if len(one) == len(three):
        longer = [axis for axis, sizes in enumerate(zip(one, three, strict=True)) if sizes[0] != sizes[1]]
        if len(longer) == 1 and three[longer[0]] == 3 * one[longer[0]]:
            return BatchAxis(longer[0], one[longer[0]])
    return "other"


def statistics_of_samples(
    value: Tensor, axis: BatchAxis | Literal["none"], count: int
) -> tuple[Tensor | None, Tensor | None]:
    """Return the statistics by sample, for both orders of an axis that holds samples and other things."""
    if not isinstance(axis, BatchAxis):
        return statistics(value.unsqueeze(0)), None
    moved = value.movedim(axis.axis, 0)
    if len(moved) != count * axis.inner:
        return None, None
    if axis.inner == 1:
        return statistics(moved), None
    outer = moved.reshape(count, axis.inner, *moved.shape[1:])
    inner = moved.reshape(axis.inner, count, *moved.shape[1:]).movedim(1, 0)
    return statistics(outer), statistics(inner)


def projection(value: Tensor, axis: BatchAxis | Literal["none"], _: int) -> tuple[Tensor | None, None]:
    """Return one number for each row of the axis with the samples: a product with fixed random numbers."""
    if not isinstance(axis, BatchAxis):
        return None, None
    rows = value.movedim(axis.axis, 0).flatten(1) if value.ndim > 1 else value[:, None]
    weights = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(0))
    return _finite(rows.float()) @ weights, None


def rows_follow(batch: Tensor, moved: Tensor, inner: int, order: Sequence[int]) -> bool:
    """Return whether the rows of a batch in another order are those of the batch, in that order.

    Args:
        batch: Projected rows of the batch.
        moved: Projected rows of the samples in another order.
        inner: Number of rows of one sample.
        order: Samples of ``moved``.
    """
    outer = batch.reshape(len(order), inner)[list(order)].flatten()
    between = batch.reshape(inner, len(order))[:, list(order)].flatten()
    bound = SAME_ROWS * float(batch.abs().amax()) + 1e-30
    return len(moved) == len(batch) and min(float((moved - part).abs().amax()) for part in (outer, between)) < bound


def same_rows(left: Tensor, right: Tensor) -> bool:
    """Return whether two sets of projected rows are the same in any order."""
    if len(left) != len(right):
        return False
    change = (left.sort().values - right.sort().values).abs().amax()
    return float(change) < SAME_ROWS * float(right.abs().amax()) + 1e-30


def statistics(rows: Tensor) -> Tensor:
    """Return mean, minimum and maximum of each sample and channel.

    The first and the last axis of a sample both count as channels, since layers differ in their layout.

    Args:
        rows: (R, ...) numbers or truth values.

    Returns:
        (R, C, 3) float32.
    """
    if rows.ndim <= 2:
        single = rows.reshape(len(rows), -1)
        single = single[:, :: _stride(single.shape[1])].float()
        return _finite(torch.stack([single] * 3, dim=2))
    first = rows.flatten(2)  # (R, C, P)
    last = rows.flatten(1, -2).transpose(1, 2)  # (R, C, P)
    parts = [first, last]
    if rows.ndim == 4 and rows.shape[2] == rows.shape[3]:
        parts = [first]  # images (C, H, W)
    elif rows.ndim == 4 and rows.shape[1] == rows.shape[2]:
        parts = [last]  # images (H, W, C)
    parts = [part[:, :, :: _stride(part[0].numel())].float() for part in parts]
    stats = [torch.stack([part.mean(2), *part.aminmax(dim=2)], dim=2) for part in parts]
    return _finite(stats[0] if len(stats) == 1 else torch.cat(stats, dim=1))


def _stride(elements: int) -> int:
    """Return the distance between the elements to keep: odd, since sizes of layers are even."""
    stride = -(-elements // MAX_ROW_ELEMENTS)
    return stride if stride % 2 else stride + 1


def _finite(stats: Tensor) -> Tensor:
    return stats.nan_to_num(nan=NAN_MARK, posinf=LARGEST, neginf=-LARGEST).clamp(-LARGEST, LARGEST)
