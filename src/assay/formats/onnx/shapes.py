"""ONNX operators that move values or make tensors of a shape, in torch, with gradients.

Each as ``onnx_operators`` says.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.formats.onnx.arguments import DTYPES, Attributes, Inputs, Unsupported, check_size, needed, numbers


def pad(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, pads = needed(inputs), numbers(attributes, inputs, 1, "pads")
    assert pads is not None
    axes = numbers(attributes, inputs, 3, "axes") or list(range(x.ndim))
    around = [(0, 0)] * x.ndim
    for place, axis in enumerate(axes):
        around[axis % x.ndim] = pads[place], pads[place + len(axes)]
    check_size([n + before + after for n, (before, after) in zip(x.shape[1:], around[1:], strict=True)])  # a picture's
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    mode = attributes.get("mode", b"constant").decode()
    if mode not in modes:
        raise Unsupported(f"Pad in mode {mode}")
    if mode != "constant":  # torch pads so behind the first two axes only
        around = around[2:]
    flat = [side for sides in reversed(around) for side in sides]
    value = numbers(attributes, inputs, 2, "value")
    if mode == "constant":
        return F.pad(x, flat, value=value[0] if value else 0)
    return F.pad(x, flat, mode=modes[mode])


def take_slice(attributes: Attributes, inputs: Inputs) -> Tensor:
    x = needed(inputs)
    starts, ends = numbers(attributes, inputs, 1, "starts"), numbers(attributes, inputs, 2, "ends")
    assert starts is not None
    assert ends is not None
    axes = numbers(attributes, inputs, 3, "axes") or list(range(len(starts)))
    steps = numbers(attributes, inputs, 4, "steps") or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index = range(*slice(start, end, step).indices(x.shape[axis]))
        if step > 0:
            x = x[(slice(None),) * (axis % x.ndim) + (slice(index.start, index.stop, step),)]
        else:
            x = x.index_select(axis, torch.tensor(list(index), dtype=torch.int64, device=x.device))
    return x


def split(attributes: Attributes, inputs: Inputs) -> tuple[Tensor, ...]:
    x, axis = needed(inputs), attributes.get("axis", 0)
    sizes = numbers(attributes, inputs, 1, "split")
    return x.split(sizes if sizes else math.ceil(x.shape[axis] / attributes["outputs"]), dim=axis)


def reshape(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, shape = needed(inputs), numbers(attributes, inputs, 1, "shape")
    assert shape is not None
    if not attributes.get("allowzero", 0):
        shape = [x.shape[place] if side == 0 else side for place, side in enumerate(shape)]
    return x.reshape(shape)


def gather(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, index, axis = needed(inputs), needed(inputs, 1).long(), attributes.get("axis", 0)
    index = torch.where(index < 0, index + x.shape[axis], index)
    taken = x.index_select(axis, index.flatten())
    axis %= x.ndim
    return taken.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def squeeze(attributes: Attributes, inputs: Inputs) -> Tensor:
    axes = numbers(attributes, inputs, 1, "axes")
    return needed(inputs).squeeze() if axes is None else needed(inputs).squeeze(tuple(axes))


def unsqueeze(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, axes = needed(inputs), numbers(attributes, inputs, 1, "axes") or []
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def expand(attributes: Attributes, inputs: Inputs) -> Tensor:
    shape = torch.broadcast_shapes(needed(inputs).shape, numbers(attributes, inputs, 1, "shape") or [])
    check_size(shape)
    return needed(inputs).expand(shape)


def filled(attributes: Attributes, inputs: Inputs) -> Tensor:
    shape = needed(inputs).tolist()
    check_size(shape)
    value = attributes.get("value")
    return torch.zeros(shape) if value is None else value.reshape(()).expand(shape).clone()


def number_range(attributes: Attributes, inputs: Inputs) -> Tensor:
    start, end, step = (needed(inputs, place) for place in range(3))
    check_size([max(0, math.ceil((float(end) - float(start)) / float(step)))])
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def flatten(attributes: Attributes, inputs: Inputs) -> Tensor:
    x = needed(inputs)
    axis = attributes.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def cast(attributes: Attributes, inputs: Inputs) -> Tensor:
    if attributes["to"] not in DTYPES:
        raise Unsupported(f"Cast to the type {attributes['to']}")
    return needed(inputs).to(DTYPES[attributes["to"]])
