"""Computing ONNX operators: layers, and the rounding of quantized files, in torch, with gradients.

The module ``operators`` describes their signature.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.formats.onnx.arguments import (
    RANGES,
    Attributes,
    Inputs,
    Operator,
    UnsupportedOperator,
    number_list,
    refuse_large,
    required_input,
)
from assay.nn.fake_quant import straight_through_round


def _padding(attributes: Attributes, size: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Return the padding before and after each spatial axis, in the order of ``F.pad``."""
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


def conv(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Convolve in one to three dimensions."""
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


def max_pool(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Pool by maximum in one to three dimensions."""
    x, kernel = required_input(inputs), attributes["kernel_shape"]
    padding = _padding(attributes, x.shape[2:], kernel)
    if attributes.get("ceil_mode", 0) and any(padding):
        # Frameworks differ on windows that begin in the padding.
        raise UnsupportedOperator("MaxPool with ceil_mode and padding")
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


def average_pool(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Pool by average in one to three dimensions."""
    x, kernel = required_input(inputs), attributes["kernel_shape"]
    if attributes.get("ceil_mode", 0) or set(attributes.get("dilations", [1])) != {1}:
        raise UnsupportedOperator("AveragePool with ceil_mode or dilations")
    functions: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
    pool, strides = functions[len(kernel)], attributes.get("strides", [1] * len(kernel))
    padding = _padding(attributes, x.shape[2:], kernel)
    mean = pool(F.pad(x, padding), kernel, strides)
    if attributes.get("count_include_pad", 0) or not any(padding):
        return mean
    return mean / pool(F.pad(torch.ones_like(x), padding), kernel, strides)


def gemm(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Multiply two matrices, and add a third input."""
    a, b = required_input(inputs), required_input(inputs, 1)
    product = (a.T if attributes.get("transA") else a) @ (b.T if attributes.get("transB") else b)
    product = attributes.get("alpha", 1.0) * product
    c = inputs[2] if len(inputs) > 2 else None
    return product if c is None else product + attributes.get("beta", 1.0) * c


def batch_norm(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Normalize with fixed statistics."""
    if attributes.get("training_mode", 0):
        raise UnsupportedOperator("BatchNormalization in training mode")
    scale, shift, mean, variance = (required_input(inputs, place) for place in (1, 2, 3, 4))
    epsilon = attributes.get("epsilon", 1e-5)
    return F.batch_norm(required_input(inputs), mean, variance, scale, shift, training=False, eps=epsilon)


def layer_norm(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Normalize over the last axes."""
    x = required_input(inputs)
    shape = x.shape[attributes.get("axis", -1) % x.ndim :]
    bias = inputs[2] if len(inputs) > 2 else None
    return F.layer_norm(x, shape, inputs[1], bias, attributes.get("epsilon", 1e-5))


def instance_norm(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Normalize each channel of each sample."""
    epsilon = attributes.get("epsilon", 1e-5)
    return F.instance_norm(required_input(inputs), weight=inputs[1], bias=inputs[2], eps=epsilon)


def softmax(function: Callable[..., Tensor]) -> Operator:
    """Return the operator of a softmax function, with the axes of the opset."""

    def run(attributes: Attributes, inputs: Inputs) -> Tensor:
        x, axis = required_input(inputs), attributes.get("axis")
        if attributes["opset"] >= 13:
            return function(x, dim=-1 if axis is None else axis)
        axis = (1 if axis is None else axis) % x.ndim  # older opsets: over all axes from this one on
        return function(x.flatten(axis), dim=-1).view_as(x)

    return run


def resize(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Resize by nearest neighbor or linear interpolation."""
    x, mode = required_input(inputs), attributes.get("mode", b"nearest").decode()
    place = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    sizes, scales = number_list(attributes, inputs, 3, "sizes"), number_list(attributes, inputs, 2, "scales")
    size = sizes[2:] if sizes else [int(n * s) for n, s in zip(x.shape[2:], (scales or [])[2:], strict=True)]
    refuse_large([*x.shape[:2], *size])
    if attributes.get("antialias", 0) or "axes" in attributes:
        raise UnsupportedOperator("Resize with antialias or axes")
    if mode == "nearest" and place == "asymmetric" and attributes.get("nearest_mode") == b"floor":
        return F.interpolate(x, size, mode="nearest")
    if mode == "linear" and x.ndim == 4 and place in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return F.interpolate(x, size, mode="bilinear", align_corners=place == "align_corners")
    raise UnsupportedOperator(f"Resize in mode {mode}, {place}")


def quantize(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Round to the quantized integers, returned as floats. Gradients pass the rounding unchanged."""
    x, scale = required_input(inputs), required_input(inputs, 1)
    zero = inputs[2] if len(inputs) > 2 else None
    if zero is None and attributes.get("output_dtype", 0):
        raise UnsupportedOperator("QuantizeLinear with output_dtype")
    if zero is not None and zero.dtype not in RANGES:
        raise UnsupportedOperator(f"QuantizeLinear to {zero.dtype}")
    low, high = RANGES[torch.uint8 if zero is None else zero.dtype]
    if scale.numel() > 1:
        raise UnsupportedOperator("QuantizeLinear of activations with a scale per channel")
    (step,) = number_list(attributes, inputs, 1, "scale") or [1.0]
    (shift,) = number_list(attributes, inputs, 2, "zero") or [0]
    return straight_through_round(x, step, low - shift, high - shift) / step + shift


def dequantize(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Return the floats represented by quantized integers."""
    q, scale = required_input(inputs), required_input(inputs, 1)
    zero = inputs[2] if len(inputs) > 2 else None
    if scale.ndim > 1:
        raise UnsupportedOperator("DequantizeLinear by blocks")
    shape = [1] * q.ndim
    if scale.numel() > 1:
        shape[attributes.get("axis", 1)] = scale.numel()
    shifted = q.float() if zero is None else q.float() - zero.float().reshape(shape if zero.numel() > 1 else [])
    return shifted * scale.float().reshape(shape if scale.numel() > 1 else [])


def gelu(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Apply the GELU activation, exact or by tanh."""
    return F.gelu(required_input(inputs), approximate=attributes.get("approximate", b"none").decode())
