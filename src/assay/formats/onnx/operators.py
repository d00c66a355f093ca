"""What each ONNX operator does, in torch, with gradients. Those of image and text models as exporters write them.

Each takes the node's attributes and its inputs (None for one that was left out); the opset decides whether some numbers
come as attributes or as inputs, and both are read. The standard: https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.formats.onnx import layers, shapes
from assay.formats.onnx.arguments import Attributes, Inputs, Operator, needed, numbers


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def run(attributes: Attributes, inputs: Inputs) -> Tensor:
        x, axes = needed(inputs), numbers(attributes, inputs, 1, "axes")
        if not axes:
            if attributes.get("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.ndim))
        return function(x, dim=tuple(axes), keepdim=bool(attributes.get("keepdims", 1)))

    return run


def _clip(attributes: Attributes, inputs: Inputs) -> Tensor:
    low, high = (numbers(attributes, inputs, place, name) for place, name in ((1, "min"), (2, "max")))
    if low is None and high is None:
        return needed(inputs)
    return needed(inputs).clamp(None if low is None else low[0], None if high is None else high[0])


def _plain(function: Callable[..., Tensor]) -> Operator:
    """Of an operator without attributes."""
    return lambda attributes, inputs: function(*inputs)


def _of_all(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """Of an operator that takes any number of inputs, from one on."""
    return lambda attributes, inputs: reduce(function, [x for x in inputs if x is not None])


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


OPERATORS: dict[str, Operator] = {
    "Abs": _plain(torch.abs),
    "Add": _plain(torch.add),
    "And": _plain(torch.logical_and),
    "AveragePool": layers.average_pool,
    "BatchNormalization": layers.batch_norm,
    "Cast": shapes.cast,
    "Ceil": _plain(torch.ceil),
    "Clip": _clip,
    "Concat": lambda attributes, inputs: torch.cat([x for x in inputs if x is not None], dim=attributes["axis"]),
    "Constant": lambda attributes, inputs: attributes["value"],
    "ConstantOfShape": shapes.filled,
    "Conv": layers.conv,
    "Cos": _plain(torch.cos),
    "DequantizeLinear": layers.dequantize,
    "Div": _plain(_divide),
    "Dropout": lambda attributes, inputs: needed(inputs),
    "Elu": lambda attributes, inputs: F.elu(needed(inputs), attributes.get("alpha", 1.0)),
    "Equal": _plain(torch.eq),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Expand": shapes.expand,
    "Flatten": shapes.flatten,
    "Floor": _plain(torch.floor),
    "Gather": shapes.gather,
    "Gelu": layers.gelu,
    "Gemm": layers.gemm,
    "GlobalAveragePool": lambda attributes, inputs: (
        needed(inputs).flatten(2).mean(2)[(..., *[None] * (needed(inputs).ndim - 2))]
    ),
    "Greater": _plain(torch.gt),
    "GreaterOrEqual": _plain(torch.ge),
    "HardSigmoid": lambda attributes, inputs: (
        attributes.get("alpha", 0.2) * needed(inputs) + attributes.get("beta", 0.5)
    ).clamp(0, 1),
    "HardSwish": _plain(F.hardswish),
    "Identity": _plain(lambda x: x),
    "InstanceNormalization": layers.instance_norm,
    "LayerNormalization": layers.layer_norm,
    "LeakyRelu": lambda attributes, inputs: F.leaky_relu(needed(inputs), attributes.get("alpha", 0.01)),
    "Less": _plain(torch.lt),
    "LessOrEqual": _plain(torch.le),
    "Log": _plain(torch.log),
    "LogSoftmax": layers.softmax(F.log_softmax),
    "MatMul": _plain(torch.matmul),
    "Max": _of_all(torch.maximum),
    "MaxPool": layers.max_pool,
    "Min": _of_all(torch.minimum),
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "Not": _plain(torch.logical_not),
    "Or": _plain(torch.logical_or),
    "PRelu": _plain(lambda x, slope: torch.where(x < 0, slope * x, x)),
    "Pad": shapes.pad,
    "Pow": _plain(torch.pow),
    "QuantizeLinear": layers.quantize,
    "Range": shapes.number_range,
    "Reciprocal": _plain(torch.reciprocal),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _plain(F.relu),
    "Reshape": shapes.reshape,
    "Resize": layers.resize,
    "Shape": lambda attributes, inputs: torch.tensor(
        needed(inputs).shape[attributes.get("start", 0) : attributes.get("end")]
    ),
    "Sigmoid": _plain(torch.sigmoid),
    "Sin": _plain(torch.sin),
    "Slice": shapes.take_slice,
    "Softmax": layers.softmax(F.softmax),
    "Softplus": _plain(F.softplus),
    "Split": shapes.split,
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": shapes.squeeze,
    "Sub": _plain(torch.sub),
    "Sum": _of_all(torch.add),
    "Tanh": _plain(torch.tanh),
    "Transpose": lambda attributes, inputs: needed(inputs).permute(
        attributes.get("perm", list(reversed(range(needed(inputs).ndim))))
    ),
    "Unsqueeze": shapes.unsqueeze,
    "Where": _plain(torch.where),
}
"""Of the standard's own domain."""
