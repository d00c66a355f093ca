"""ONNX operators for shapes and positions of values, in torch, with gradients.

The module ``operators`` describes their signature.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.formats.onnx.arguments import (
    DTYPES,
    Attributes,
    Inputs,
    UnsupportedOperator,
    number_list,
    refuse_large,
    required_input,
)


def pad(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Pad by a constant, by reflection or by the edge value."""
    x, pads = required_input(inputs), number_list(attributes, inputs, 1, "pads")
    assert pads is not None
    axes = number_list(attributes, inputs, 3, "axes") or list(range(x.ndim))
    around = [(0, 0)] * x.ndim
    for place, axis in enumerate(axes):
        around[axis % x.ndim] = pads[place], pads[place + len(axes)]
    # The size of one image.
    refuse_large([n + before + after for n, (before, after) in zip(x.shape[1:], around[1:], strict=True)])
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    mode = attributes.get("mode", b"constant").decode()
    if mode not in modes:
        raise UnsupportedOperator(f"Pad in mode {mode}")
    if mode != "constant":  # torch supports these modes after the first two axes only
        around = around[2:]
    flat = [side for sides in reversed(around) for side in sides]
    value = number_list(attributes, inputs, 2, "value")
    if mode == "constant":
        return F.pad(x, flat, value=value[0] if value else 0)
    return F.pad(x, flat, mode=modes[mode])


def take_slice(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Cut ranges out along given axes."""
    x = required_input(inputs)
    starts, ends = number_list(attributes, inputs, 1, "starts"), number_list(attributes, inputs, 2, "ends")
    assert starts is not None
    assert ends is not None
    axes = number_list(attributes, inputs, 3, "axes") or list(range(len(starts)))
    steps = number_list(attributes, inputs, 4, "steps") or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index = range(*slice(start, end, step).indices(x.shape[axis]))
        if step > 0:
            x = x[(slice(None),) * (axis % x.ndim) + (slice(index.start, index.stop, step),)]
        else:
            x = x.index_select(axis, torch.tensor(list(index), dtype=torch.int64, device=x.device))
    return x


def split(attributes: Attributes, inputs: Inputs) -> tuple[Tensor, ...]:
    """Split a tensor along one axis."""
    x, axis = required_input(inputs), attributes.get("axis", 0)
    sizes = number_list(attributes, inputs, 1, "split")
    return x.split(sizes if sizes else math.ceil(x.shape[axis] / attributes["outputs"]), dim=axis)


def reshape(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Reshape a tensor. A side of 0 keeps the input's side, unless ``allowzero`` is set; -1 is inferred."""
    x, shape = required_input(inputs), number_list(attributes, inputs, 1, "shape")
    assert shape is not None
    if not attributes.get("allowzero", 0):
        shape = [x.shape[place] if side == 0 else side for place, side in enumerate(shape)]
    return x.reshape(shape)


def gather(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Take entries along one axis."""
    x, index, axis = required_input(inputs), required_input(inputs, 1).long(), attributes.get("axis", 0)
    index = torch.where(index < 0, index + x.shape[axis], index)
    taken = x.index_select(axis, index.flatten())
    axis %= x.ndim
    return taken.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def squeeze(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Remove axes of size 1."""
    axes = number_list(attributes, inputs, 1, "axes")
    return required_input(inputs).squeeze() if axes is None else required_input(inputs).squeeze(tuple(axes))


def unsqueeze(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Insert axes of size 1."""
    x, axes = required_input(inputs), number_list(attributes, inputs, 1, "axes") or []
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def expand(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Broadcast a tensor to a shape."""
    shape = torch.broadcast_shapes(required_input(inputs).shape, number_list(attributes, inputs, 1, "shape") or [])
    refuse_large(shape)
    return required_input(inputs).expand(shape)


def filled(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Return a tensor of one value."""
    shape = required_input(inputs).tolist()
    refuse_large(shape)
    value = attributes.get("value")
    return torch.zeros(shape) if value is None else value.reshape(()).expand(shape).clone()


def number_range(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Return evenly spaced numbers."""
    start, end, step = (required_input(inputs, place) for place in range(3))
    refuse_large([max(0, math.ceil((float(end) - float(start)) / float(step)))])
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def flatten(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Flatten a tensor to two axes."""
    x = required_input(inputs)
    axis = attributes.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def cast(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Convert a tensor to another type."""
    if attributes["to"] not in DTYPES:
        raise UnsupportedOperator(f"Cast to the type {attributes['to']}")
    return required_input(inputs).to(DTYPES[attributes["to"]])
