"""ONNX operators in torch, with gradients: those in exported image and text models.

Each takes the node's attributes and its inputs (None for an omitted one). Some numbers are attributes in older opsets
and inputs in newer ones; both are read. The standard: https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.formats.onnx import layers, shapes
from assay.formats.onnx.arguments import Attributes, Inputs, Operator, number_list, required_input


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def run(attributes: Attributes, inputs: Inputs) -> Tensor:
        x, axes = required_input(inputs), number_list(attributes, inputs, 1, "axes")
        if not axes:
            if attributes.get("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.ndim))
        return function(x, dim=tuple(axes), keepdim=bool(attributes.get("keepdims", 1)))

    return run


def _clip(attributes: Attributes, inputs: Inputs) -> Tensor:
    low, high = (number_list(attributes, inputs, place, name) for place, name in ((1, "min"), (2, "max")))
    if low is None and high is None:
        return required_input(inputs)
    return required_input(inputs).clamp(None if low is None else low[0], None if high is None else high[0])


def _no_attributes(function: Callable[..., Tensor]) -> Operator:
    """Return the operator of a torch function without attributes."""
    return lambda attributes, inputs: function(*inputs)


def _fold(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """Return the operator of a binary function for any number of inputs, from one on."""
    return lambda attributes, inputs: reduce(function, [x for x in inputs if x is not None])


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


# Operators of the standard's own domain.
OPERATORS: dict[str, Operator] = {
    "Abs": _no_attributes(torch.abs),
    "Add": _no_attributes(torch.add),
    "And": _no_attributes(torch.logical_and),
    "AveragePool": layers.average_pool,
    "BatchNormalization": layers.batch_norm,
    "Cast": shapes.cast,
    "Ceil": _no_attributes(torch.ceil),
    "Clip": _clip,
    "Concat": lambda attributes, inputs: torch.cat([x for x in inputs if x is not None], dim=attributes["axis"]),
    "Constant": lambda attributes, inputs: attributes["value"],
    "ConstantOfShape": shapes.filled,
    "Conv": layers.conv,
    "Cos": _no_attributes(torch.cos),
    "DequantizeLinear": layers.dequantize,
    "Div": _no_attributes(_divide),
    "Dropout": lambda attributes, inputs: required_input(inputs),
    "Elu": lambda attributes, inputs: F.elu(required_input(inputs), attributes.get("alpha", 1.0)),
    "Equal": _no_attributes(torch.eq),
    "Erf": _no_attributes(torch.erf),
    "Exp": _no_attributes(torch.exp),
    "Expand": shapes.expand,
    "Flatten": shapes.flatten,
    "Floor": _no_attributes(torch.floor),
    "Gather": shapes.gather,
    "Gelu": layers.gelu,
    "Gemm": layers.gemm,
    "GlobalAveragePool": lambda attributes, inputs: (
        required_input(inputs).flatten(2).mean(2)[(..., *[None] * (required_input(inputs).ndim - 2))]
    ),
    "Greater": _no_attributes(torch.gt),
    "GreaterOrEqual": _no_attributes(torch.ge),
    "HardSigmoid": lambda attributes, inputs: (
        attributes.get("alpha", 0.2) * required_input(inputs) + attributes.get("beta", 0.5)
    ).clamp(0, 1),
    "HardSwish": _no_attributes(F.hardswish),
    "Identity": _no_attributes(lambda x: x),
    "InstanceNormalization": layers.instance_norm,
    "LayerNormalization": layers.layer_norm,
    "LeakyRelu": lambda attributes, inputs: F.leaky_relu(required_input(inputs), attributes.get("alpha", 0.01)),
    "Less": _no_attributes(torch.lt),
    "LessOrEqual": _no_attributes(torch.le),
    "Log": _no_attributes(torch.log),
    "LogSoftmax": layers.softmax(F.log_softmax),
    "MatMul": _no_attributes(torch.matmul),
    "Max": _fold(torch.maximum),
    "MaxPool": layers.max_pool,
    "Min": _fold(torch.minimum),
    "Mul": _no_attributes(torch.mul),
    "Neg": _no_attributes(torch.neg),
    "Not": _no_attributes(torch.logical_not),
    "Or": _no_attributes(torch.logical_or),
    "PRelu": _no_attributes(lambda x, slope: torch.where(x < 0, slope * x, x)),
    "Pad": shapes.pad,
    "Pow": _no_attributes(torch.pow),
    "QuantizeLinear": layers.quantize,
    "Range": shapes.number_range,
    "Reciprocal": _no_attributes(torch.reciprocal),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _no_attributes(F.relu),
    "Reshape": shapes.reshape,
    "Resize": layers.resize,
    "Shape": lambda attributes, inputs: torch.tensor(
        required_input(inputs).shape[attributes.get("start", 0) : attributes.get("end")]
    ),
    "Sigmoid": _no_attributes(torch.sigmoid),
    "Sin": _no_attributes(torch.sin),
    "Slice": shapes.take_slice,
    "Softmax": layers.softmax(F.softmax),
    "Softplus": _no_attributes(F.softplus),
    "Split": shapes.split,
    "Sqrt": _no_attributes(torch.sqrt),
    "Squeeze": shapes.squeeze,
    "Sub": _no_attributes(torch.sub),
    "Sum": _fold(torch.add),
    "Tanh": _no_attributes(torch.tanh),
    "Transpose": lambda attributes, inputs: required_input(inputs).permute(
        attributes.get("perm", list(reversed(range(required_input(inputs).ndim))))
    ),
    "Unsqueeze": shapes.unsqueeze,
    "Where": _no_attributes(torch.where),
}
