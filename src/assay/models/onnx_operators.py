"""What each ONNX operator does, in torch, with gradients. Those of image and text models as exporters write them.

Each takes the node's attributes and its inputs (None for one that was left out); the opset decides whether some numbers
come as attributes or as inputs, and both are read. The standard: https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.models.rounding import round_through

Attributes = Mapping[str, Any]
Inputs = Sequence[Tensor | None]
Operator = Callable[[Attributes, Inputs], Tensor | tuple[Tensor, ...]]

MOST_ELEMENTS = 2**28
"""Of a tensor that an operator makes larger than its inputs are: a small file can ask for any size."""

DTYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float32, 11: torch.float64, 16: torch.float32,
}  # fmt: skip
"""Of ``TensorProto.DataType``; half precision is computed in float32."""

RANGES = {torch.uint8: (0, 255), torch.int8: (-128, 127), torch.int16: (-(2**15), 2**15 - 1)}


class Unsupported(Exception):
    """What the graph asks for is not among what is written here; the message says what."""


def numbers(attributes: Attributes, inputs: Inputs, place: int, name: str) -> list[Any] | None:
    """Input ``place`` as a list, or else the attribute ``name``; None where there is neither.

    Of a constant, what ``known`` says of it: tracers do not see through numbers that are read off a tensor.
    """
    given = inputs[place] if len(inputs) > place else None
    found = attributes.get(name)
    if given is not None:
        found = attributes["known"][place] if place in attributes.get("known", {}) else given.tolist()
    return None if found is None else list(found) if isinstance(found, list | tuple) else [found]


def check_size(shape: Sequence[int]) -> None:
    """Raises Unsupported where a tensor of ``shape`` is larger than any model needs."""
    if math.prod(shape) > MOST_ELEMENTS:
        raise Unsupported(f"a tensor of shape {tuple(shape)}, which is larger than {MOST_ELEMENTS} elements")


def _padding(attributes: Attributes, size: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """What is added in front of and behind each spatial axis, in the order that ``F.pad`` takes."""
    axes = len(kernel)
    strides, dilations = attributes.get("strides", [1] * axes), attributes.get("dilations", [1] * axes)
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    if auto in ("NOTSET", "VALID"):
        pads = attributes.get("pads", [0] * 2 * axes) if auto == "NOTSET" else [0] * 2 * axes
    else:
        whole = [
            max(0, (math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n)
            for n, s, k, d in zip(size, strides, kernel, dilations, strict=True)
        ]
        less, more = [total // 2 for total in whole], [total - total // 2 for total in whole]
        pads = [*less, *more] if auto == "SAME_UPPER" else [*more, *less]
    return [side for axis in reversed(range(axes)) for side in (pads[axis], pads[axis + axes])]


def _conv(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, weight, bias = inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None
    assert x is not None
    assert weight is not None
    axes = weight.ndim - 2
    functions: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
    padding = _padding(attributes, x.shape[2:], weight.shape[2:])
    even = padding[::2] == padding[1::2]
    return functions[axes](
        x if even else F.pad(x, padding),
        weight,
        bias,
        stride=attributes.get("strides", [1] * axes),
        padding=list(reversed(padding[::2])) if even else 0,
        dilation=attributes.get("dilations", [1] * axes),
        groups=attributes.get("group", 1),
    )


def _max_pool(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, kernel = _needed(inputs), attributes["kernel_shape"]
    padding = _padding(attributes, x.shape[2:], kernel)
    if attributes.get("ceil_mode", 0) and any(padding):
        raise Unsupported("MaxPool with ceil_mode and padding")  # whether a window may begin in it differs
    padded = F.pad(x, padding, value=-torch.inf)
    functions: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
    return functions[len(kernel)](
        padded,
        kernel,
        attributes.get("strides", [1] * len(kernel)),
        0,
        attributes.get("dilations", [1] * len(kernel)),
        bool(attributes.get("ceil_mode", 0)),
    )


def _average_pool(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, kernel = _needed(inputs), attributes["kernel_shape"]
    if attributes.get("ceil_mode", 0) or set(attributes.get("dilations", [1])) != {1}:
        raise Unsupported("AveragePool with ceil_mode or dilations")
    functions: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
    pool, strides = functions[len(kernel)], attributes.get("strides", [1] * len(kernel))
    padding = _padding(attributes, x.shape[2:], kernel)
    mean = pool(F.pad(x, padding), kernel, strides)
    if attributes.get("count_include_pad", 0) or not any(padding):
        return mean
    return mean / pool(F.pad(torch.ones_like(x), padding), kernel, strides)


def _gemm(attributes: Attributes, inputs: Inputs) -> Tensor:
    a, b = _needed(inputs), _needed(inputs, 1)
    product = (a.T if attributes.get("transA") else a) @ (b.T if attributes.get("transB") else b)
    product = attributes.get("alpha", 1.0) * product
    c = inputs[2] if len(inputs) > 2 else None
    return product if c is None else product + attributes.get("beta", 1.0) * c


def _batch_norm(attributes: Attributes, inputs: Inputs) -> Tensor:
    if attributes.get("training_mode", 0):
        raise Unsupported("BatchNormalization in training mode")
    scale, shift, mean, variance = (_needed(inputs, place) for place in (1, 2, 3, 4))
    return F.batch_norm(_needed(inputs), mean, variance, scale, shift, False, 0.0, attributes.get("epsilon", 1e-5))


def _layer_norm(attributes: Attributes, inputs: Inputs) -> Tensor:
    x = _needed(inputs)
    shape = x.shape[attributes.get("axis", -1) % x.ndim :]
    bias = inputs[2] if len(inputs) > 2 else None
    return F.layer_norm(x, shape, inputs[1], bias, attributes.get("epsilon", 1e-5))


def _instance_norm(attributes: Attributes, inputs: Inputs) -> Tensor:
    return F.instance_norm(_needed(inputs), weight=inputs[1], bias=inputs[2], eps=attributes.get("epsilon", 1e-5))


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def run(attributes: Attributes, inputs: Inputs) -> Tensor:
        x, axes = _needed(inputs), numbers(attributes, inputs, 1, "axes")
        if not axes:
            if attributes.get("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.ndim))
        return function(x, dim=tuple(axes), keepdim=bool(attributes.get("keepdims", 1)))

    return run


def _softmax(function: Callable[..., Tensor]) -> Operator:
    def run(attributes: Attributes, inputs: Inputs) -> Tensor:
        x, axis = _needed(inputs), attributes.get("axis")
        if attributes["opset"] >= 13:
            return function(x, dim=-1 if axis is None else axis)
        axis = (1 if axis is None else axis) % x.ndim  # before, over all axes from this one on
        return function(x.flatten(axis), dim=-1).view_as(x)

    return run


def _clip(attributes: Attributes, inputs: Inputs) -> Tensor:
    low, high = (numbers(attributes, inputs, place, name) for place, name in ((1, "min"), (2, "max")))
    if low is None and high is None:
        return _needed(inputs)
    return _needed(inputs).clamp(None if low is None else low[0], None if high is None else high[0])


def _pad(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, pads = _needed(inputs), numbers(attributes, inputs, 1, "pads")
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


def _slice(attributes: Attributes, inputs: Inputs) -> Tensor:
    x = _needed(inputs)
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


def _split(attributes: Attributes, inputs: Inputs) -> tuple[Tensor, ...]:
    x, axis = _needed(inputs), attributes.get("axis", 0)
    sizes = numbers(attributes, inputs, 1, "split")
    return x.split(sizes if sizes else math.ceil(x.shape[axis] / attributes["outputs"]), dim=axis)


def _reshape(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, shape = _needed(inputs), numbers(attributes, inputs, 1, "shape")
    assert shape is not None
    if not attributes.get("allowzero", 0):
        shape = [x.shape[place] if side == 0 else side for place, side in enumerate(shape)]
    return x.reshape(shape)


def _gather(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, index, axis = _needed(inputs), _needed(inputs, 1).long(), attributes.get("axis", 0)
    index = torch.where(index < 0, index + x.shape[axis], index)
    taken = x.index_select(axis, index.flatten())
    axis %= x.ndim
    return taken.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def _squeeze(attributes: Attributes, inputs: Inputs) -> Tensor:
    axes = numbers(attributes, inputs, 1, "axes")
    return _needed(inputs).squeeze() if axes is None else _needed(inputs).squeeze(tuple(axes))


def _unsqueeze(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, axes = _needed(inputs), numbers(attributes, inputs, 1, "axes") or []
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _expand(attributes: Attributes, inputs: Inputs) -> Tensor:
    shape = torch.broadcast_shapes(_needed(inputs).shape, numbers(attributes, inputs, 1, "shape") or [])
    check_size(shape)
    return _needed(inputs).expand(shape)


def _filled(attributes: Attributes, inputs: Inputs) -> Tensor:
    shape = _needed(inputs).tolist()
    check_size(shape)
    value = attributes.get("value")
    return torch.zeros(shape) if value is None else value.reshape(()).expand(shape).clone()


def _range(attributes: Attributes, inputs: Inputs) -> Tensor:
    start, end, step = (_needed(inputs, place) for place in range(3))
    check_size([max(0, math.ceil((float(end) - float(start)) / float(step)))])
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def _resize(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, mode = _needed(inputs), attributes.get("mode", b"nearest").decode()
    place = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    sizes, scales = numbers(attributes, inputs, 3, "sizes"), numbers(attributes, inputs, 2, "scales")
    size = sizes[2:] if sizes else [int(n * s) for n, s in zip(x.shape[2:], (scales or [])[2:], strict=True)]
    check_size([*x.shape[:2], *size])
    if attributes.get("antialias", 0) or "axes" in attributes:
        raise Unsupported("Resize with antialias or axes")
    if mode == "nearest" and place == "asymmetric" and attributes.get("nearest_mode") == b"floor":
        return F.interpolate(x, size, mode="nearest")
    if mode == "linear" and x.ndim == 4 and place in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return F.interpolate(x, size, mode="bilinear", align_corners=place == "align_corners")
    raise Unsupported(f"Resize in mode {mode}, {place}")


def _quantize(attributes: Attributes, inputs: Inputs) -> Tensor:
    """The integers as floats: what follows takes them, and gradients pass."""
    x, scale = _needed(inputs), _needed(inputs, 1)
    zero = inputs[2] if len(inputs) > 2 else None
    if zero is None and attributes.get("output_dtype", 0):
        raise Unsupported("QuantizeLinear with output_dtype")
    if zero is not None and zero.dtype not in RANGES:
        raise Unsupported(f"QuantizeLinear to {zero.dtype}")
    low, high = RANGES[torch.uint8 if zero is None else zero.dtype]
    if scale.numel() > 1:
        raise Unsupported("QuantizeLinear of activations with a scale per channel")
    (step,), (shift,) = numbers(attributes, inputs, 1, "scale") or [1.0], numbers(attributes, inputs, 2, "zero") or [0]
    return round_through(x, step, low - shift, high - shift) / step + shift


def _dequantize(attributes: Attributes, inputs: Inputs) -> Tensor:
    q, scale = _needed(inputs), _needed(inputs, 1)
    zero = inputs[2] if len(inputs) > 2 else None
    if scale.ndim > 1:
        raise Unsupported("DequantizeLinear by blocks")
    shape = [1] * q.ndim
    if scale.numel() > 1:
        shape[attributes.get("axis", 1)] = scale.numel()
    shifted = q.float() if zero is None else q.float() - zero.float().reshape(shape if zero.numel() > 1 else [])
    return shifted * scale.float().reshape(shape if scale.numel() > 1 else [])


def _cast(attributes: Attributes, inputs: Inputs) -> Tensor:
    if attributes["to"] not in DTYPES:
        raise Unsupported(f"Cast to the type {attributes['to']}")
    return _needed(inputs).to(DTYPES[attributes["to"]])


def _needed(inputs: Inputs, place: int = 0) -> Tensor:
    value = inputs[place] if len(inputs) > place else None
    if value is None:
        raise Unsupported(f"a node without its input {place}")
    return value


def _plain(function: Callable[..., Tensor]) -> Operator:
    """Of an operator without attributes."""
    return lambda attributes, inputs: function(*inputs)


def _of_all(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """Of an operator that takes any number of inputs, from one on."""
    return lambda attributes, inputs: reduce(function, [x for x in inputs if x is not None])


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _gelu(attributes: Attributes, inputs: Inputs) -> Tensor:
    return F.gelu(_needed(inputs), approximate=attributes.get("approximate", b"none").decode())


def _flatten(attributes: Attributes, inputs: Inputs) -> Tensor:
    x = _needed(inputs)
    axis = attributes.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


OPERATORS: dict[str, Operator] = {
    "Abs": _plain(torch.abs),
    "Add": _plain(torch.add),
    "And": _plain(torch.logical_and),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Ceil": _plain(torch.ceil),
    "Clip": _clip,
    "Concat": lambda attributes, inputs: torch.cat([x for x in inputs if x is not None], dim=attributes["axis"]),
    "Constant": lambda attributes, inputs: attributes["value"],
    "ConstantOfShape": _filled,
    "Conv": _conv,
    "Cos": _plain(torch.cos),
    "DequantizeLinear": _dequantize,
    "Div": _plain(_divide),
    "Dropout": lambda attributes, inputs: _needed(inputs),
    "Elu": lambda attributes, inputs: F.elu(_needed(inputs), attributes.get("alpha", 1.0)),
    "Equal": _plain(torch.eq),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _plain(torch.floor),
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda attributes, inputs: (
        _needed(inputs).flatten(2).mean(2)[(..., *[None] * (_needed(inputs).ndim - 2))]
    ),
    "Greater": _plain(torch.gt),
    "GreaterOrEqual": _plain(torch.ge),
    "HardSigmoid": lambda attributes, inputs: (
        attributes.get("alpha", 0.2) * _needed(inputs) + attributes.get("beta", 0.5)
    ).clamp(0, 1),
    "HardSwish": _plain(F.hardswish),
    "Identity": _plain(lambda x: x),
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda attributes, inputs: F.leaky_relu(_needed(inputs), attributes.get("alpha", 0.01)),
    "Less": _plain(torch.lt),
    "LessOrEqual": _plain(torch.le),
    "Log": _plain(torch.log),
    "LogSoftmax": _softmax(F.log_softmax),
    "MatMul": _plain(torch.matmul),
    "Max": _of_all(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _of_all(torch.minimum),
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "Not": _plain(torch.logical_not),
    "Or": _plain(torch.logical_or),
    "PRelu": _plain(lambda x, slope: torch.where(x < 0, slope * x, x)),
    "Pad": _pad,
    "Pow": _plain(torch.pow),
    "QuantizeLinear": _quantize,
    "Range": _range,
    "Reciprocal": _plain(torch.reciprocal),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _plain(F.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda attributes, inputs: torch.tensor(
        _needed(inputs).shape[attributes.get("start", 0) : attributes.get("end")]
    ),
    "Sigmoid": _plain(torch.sigmoid),
    "Sin": _plain(torch.sin),
    "Slice": _slice,
    "Softmax": _softmax(F.softmax),
    "Softplus": _plain(F.softplus),
    "Split": _split,
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(torch.sub),
    "Sum": _of_all(torch.add),
    "Tanh": _plain(torch.tanh),
    "Transpose": lambda attributes, inputs: _needed(inputs).permute(
        attributes.get("perm", list(reversed(range(_needed(inputs).ndim))))
    ),
    "Unsqueeze": _unsqueeze,
    "Where": _plain(torch.where),
}
"""Of the standard's own domain."""
