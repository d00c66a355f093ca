"""Comparison of the intermediate values and of the answers of two calls of one model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from assay.graphs.execution_trace import ExecutionTrace, TracedValue

# Change of an intermediate value of one sample, as a fraction of its channel's largest number, if only the rest of the
# batch or the number of the call changes. Clean models (four CIFAR ResNets, MobileNetV2, some
# 35 small transformers models with random weights) stay below 0.0003; a gate changes by 1. Int8 files
# of ResNet-20 and ResNet-32 stay below the bound.
MAX_CHANGE = 0.05
# Noise of a channel, as a fraction of the value's largest number. Sums in another order differ by less.
NOISE = 1e-3
# A small change of the images counts as a switch if it changes the mean of a channel by more than this fraction of
# the change by a larger one, of the spread over the samples, and of the value itself. The same clean models reach 0.34
# of these bounds, and MobileNetV2 on synthetic images 0.73. On enlarged CIFAR-10 images one of its channels exceeded
# them with 2 of 3 seeds, and not with other samples. So a switch counts if it occurs with other samples too.
SWITCH_RATIO, SPREADS, SWITCH_SIZE = 0.5, 1.0, 0.2
SWITCH_NOISE = 0.01  # as ``NOISE``, for switches
# Change of an answer, as a fraction of the span of all logits.
MAX_ANSWER_CHANGE = 5e-3


class Change(NamedTuple):
    """Largest change of an intermediate value."""

    size: float  # relative
    name: str  # of the value
    channel: int = 0  # of a switch


NO_CHANGE = Change(0.0, "")


def largest_change(
    left: ExecutionTrace, row: int, right: ExecutionTrace, other: int, without: Collection[str] = ()
) -> Change:
    """Return the largest change of the intermediate values of one sample between two calls.

    Args:
        left: Trace of one call.
        row: Position of the sample in its batch.
        right: Trace of the other call.
        other: Position of the sample in that batch.
        without: Names of values to leave out.

    Returns:
        The first change above ``MAX_CHANGE``, else the largest, relative to the largest number of the channel.
    """
    changes = [NO_CHANGE]
    for name, value in left.values.items():
        partner = right.values.get(name)
        if partner is not None and name not in without:
            sizes = [_relative_change(a, row, b, other) for a, b in _pairs(value, partner)]
            changes.append(Change(min(sizes, default=0.0), name))
    return next((change for change in changes if change.size > MAX_CHANGE), max(changes))


def _pairs(left: TracedValue, right: TracedValue) -> Iterator[tuple[Tensor, Tensor]]:
    for a, b in ((left.rows, right.rows), (left.other_rows, right.other_rows)):
        if a is not None and b is not None and a.shape[1:] == b.shape[1:]:
            yield a, b


def _relative_change(left: Tensor, row: int, right: Tensor, other: int) -> float:
    a, b = left[row if len(left) > 1 else 0], right[other if len(right) > 1 else 0]
    size = torch.maximum(a.abs(), b.abs()).amax(1)
    noise = NOISE * torch.maximum(left.abs().amax(), right.abs().amax())
    change = (a - b).abs().amax(1)
    return float((change / (size + noise + 1e-30)).amax())


def largest_switch(
    calls: Sequence[ExecutionTrace],
    spread_from: ExecutionTrace,
    groups: Sequence[Sequence[int]],
    without: Collection[str] = (),
    only: Change | None = None,
) -> Change:
    """Return the value that a small change of the images moves most, compared with a larger change.

    Args:
        calls: Traces of the images, of the images after a small change, and after a larger change.
        spread_from: Trace of several images, for the spread of each value over them.
        groups: Rows of similar images; a switch acts on all images of a group.
        without: Names of values to leave out.
        only: An earlier result; its channel alone is compared.

    Returns:
        The first switch, of a change above 1, else the largest change.
    """
    switches = [NO_CHANGE]
    names = list(spread_from.values) if only is None else [only.name]
    for name, reference in ((name, spread_from.values[name]) for name in names if name in spread_from.values):
        found = [trace.values[name].rows for trace in calls if name in trace.values]
        all_rows = [part for part in found if part is not None]
        rows = [part[:, :, 0] for part in all_rows]
        same = len(rows) == len(calls) and len({part.shape for part in rows}) == 1
        if same and name not in without and reference.rows is not None and reference.rows.shape[1] == rows[0].shape[1]:
            spread = reference.rows[:, :, 0].std(0, unbiased=False)
            noise = SWITCH_NOISE * max(float(part.abs().amax()) for part in all_rows)
            ratio = _switch_ratio(rows, spread, groups, noise)
            channel = int(ratio.argmax()) if only is None else only.channel
            switches.append(Change(float(ratio[channel]) if channel < len(ratio) else 0.0, name, channel))
    return next((switch for switch in switches if switch.size > 1), max(switches))


def _switch_ratio(rows: Sequence[Tensor], spread: Tensor, groups: Sequence[Sequence[int]], noise: float) -> Tensor:
    """Return the change of each channel (C,) that all rows of one group share, relative to its bound.

    Args:
        rows: Values (R, C) of the images, after a small change, and after a larger change.
        spread: Spread of each channel over the samples (C,).
        groups: Rows of similar images.
        noise: Smallest bound.
    """
    base, near, far = rows
    small, large = (near - base).abs(), (far - base).abs()
    size = torch.stack(list(rows)).abs().amax((0, 1))
    bound = torch.maximum(SWITCH_RATIO * large, SWITCH_SIZE * size).maximum(SPREADS * spread)
    ratio = small / bound.clamp_min(noise + 1e-30)
    return torch.stack([ratio[list(group) if len(base) > 1 else [0]].amin(0) for group in groups]).amax(0)


def constant_switch(left: ExecutionTrace, right: ExecutionTrace) -> Change:
    """Return the largest change of a channel that is the same for all samples of a call, and differs between two calls.

    Args:
        left: Trace of some images.
        right: Trace of the same images in another range of values.

    Returns:
        The change relative to the larger number; at most 1 if the sign stays.
    """
    changes = [NO_CHANGE]
    for name, value in left.values.items():
        partner = right.values.get(name)
        for a, b in () if partner is None else _pairs(value, partner):
            if len(a) == len(b):
                sizes = [part.abs().amax((0, 2)) for part in (a, b)]
                change = (a - b).abs().amax((0, 2)) / (torch.maximum(*sizes) + 1e-30)
                # Of each call by itself: an infinite value in one call hides no spread in the other.
                spreads = [(part.amax(0) - part.amin(0)).amax(1) for part in (a, b)]
                is_constant = [spread <= NOISE * size for spread, size in zip(spreads, sizes, strict=True)]
                constant = change[is_constant[0] & is_constant[1]]
                changes.append(Change(max(constant.tolist(), default=0.0), name))
    return max(changes)


def answers_differ(left: Tensor, right: Tensor) -> Tensor:
    """Return for each input whether two outputs of a model differ by more than numerical noise.

    Args:
        left: (N, K) outputs.
        right: (N, K) outputs for the same inputs.

    Returns:
        (N,) bool.
    """
    change = (left - right).abs().nan_to_num(nan=0.0, posinf=0.0).amax(1)
    return (change > MAX_ANSWER_CHANGE * span_of(torch.cat([left, right]))) | nan_differs(left, right)


def nan_differs(left: Tensor, right: Tensor) -> Tensor:
    """Return for each input whether only one of two outputs (N, K) is finite."""
    return (left.isfinite() != right.isfinite()).any(1)


def span_of(outputs: Tensor) -> Tensor:
    """Return the median over the inputs of the span of the finite outputs (N, K)."""
    finite = outputs[outputs.isfinite().all(1)]
    span = (finite.amax(1) - finite.amin(1)).median() if len(finite) else torch.tensor(0.0)
    return span.clamp_min(1e-12)
