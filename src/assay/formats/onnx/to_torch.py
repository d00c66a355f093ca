"""Conversion of an ONNX graph into a torch module with gradients to its input.

The module computes node by node as ONNX Runtime does. In quantized graphs (QuantizeLinear and DequantizeLinear around
each operator), gradients pass the rounding unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from assay.core.errors import UnusableInput, first_line
from assay.formats.onnx.arguments import DTYPES, UnsupportedOperator
from assay.formats.onnx.module import OnnxGraph, Step
from assay.formats.onnx.operators import OPERATORS
from assay.formats.onnx.slicing import MAX_NODES, nodes_for

if TYPE_CHECKING:
    import onnx

STANDARD_DOMAINS = ("", "ai.onnx")
MAX_KNOWN_NUMBERS = 16  # of a constant that configures an operator: a shape, axes, a scale


def onnx_to_torch(model: onnx.ModelProto, folder: Path, *, source: str, result: str) -> OnnxGraph:
    """Return the graph of an ONNX model as a torch module.

    Constant parts of the graph are computed once, here.

    Args:
        model: The model.
        folder: Folder of its external data.
        source: Name of the input.
        result: Name of the output.

    Raises:
        UnusableInput: An operator is unknown (the message names it), or the graph is malformed.
    """
    graph = model.graph
    opset = max((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), default=1)
    if len(graph.node) > MAX_NODES:
        raise UnusableInput(f"expected at most {MAX_NODES} nodes, got {len(graph.node)}")
    constants = _initializers(graph, folder)
    steps: list[Step] = []
    computed: set[str] = {source}  # values that depend on the input
    for node in _nodes_behind(graph.node, result):
        step = _step(node, opset, folder)
        absent = [name for name in step.inputs if name and name not in constants and name not in computed]
        if absent:
            raise UnusableInput(f"{step.name} reads {absent[0]!r}, which nothing before it makes")
        known = {
            position: constants[name].tolist()
            for position, name in enumerate(step.inputs)
            if name in constants and constants[name].numel() <= MAX_KNOWN_NUMBERS
        }
        step = replace(step, attributes={**step.attributes, "known": known})
        if computed.isdisjoint(step.inputs):
            constants.update(zip(step.outputs, _run(step, constants), strict=False))
        else:
            steps.append(step)
            computed.update(step.outputs)
    if result not in computed:
        raise UnusableInput(f"its output {result!r} does not depend on its input")
    needed, used = nodes_for(steps, result)
    return OnnxGraph(needed, {name: value for name, value in constants.items() if name in used}, source, result).eval()


def _nodes_behind(nodes: Sequence[onnx.NodeProto], result: str) -> list[onnx.NodeProto]:
    """Return the nodes behind a value, so that the operators of other outputs do not matter."""
    wanted, kept = {result}, []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


def _initializers(graph: onnx.GraphProto, folder: Path) -> dict[str, Tensor]:
    from onnx import numpy_helper

    return {
        tensor.name: _tensor(numpy_helper.to_array(tensor, base_dir=str(folder)), tensor.name)
        for tensor in graph.initializer
    }


def _tensor(array: Any, name: str) -> Tensor:
    try:
        value = torch.from_numpy(array.copy())
    except TypeError:
        raise UnusableInput(f"{name!r} holds values of the type {array.dtype}, which torch has not") from None
    return value.float() if value.dtype == torch.float16 else value


def _step(node: onnx.NodeProto, opset: int, folder: Path) -> Step:
    name = node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}.{node.op_type}"
    if name not in OPERATORS:
        raise UnusableInput(f"the operator {name} is not among those that gradients are known for")
    attributes = {attribute.name: _attribute_value(attribute, folder) for attribute in node.attribute}
    attributes |= {"opset": opset, "outputs": len(node.output)}
    if name == "Constant" and "value" not in attributes:
        attributes["value"] = _constant(attributes)
    while node.input and not node.input[-1]:
        node.input.pop()  # an input omitted at the end
    return Step(name, OPERATORS[name], attributes, tuple(node.input), tuple(node.output), node.name or name)


def _attribute_value(attribute: onnx.AttributeProto, folder: Path) -> Any:
    from onnx import AttributeProto, helper, numpy_helper

    if attribute.type == AttributeProto.TENSOR:
        return _tensor(numpy_helper.to_array(attribute.t, base_dir=str(folder)), attribute.name)
    return helper.get_attribute_value(attribute)


def _constant(attributes: Mapping[str, Any]) -> Tensor:
    for name, dtype in (("value_float", 1), ("value_floats", 1), ("value_int", 7), ("value_ints", 7)):
        if name in attributes:
            return torch.tensor(attributes[name], dtype=DTYPES[dtype])
    raise UnusableInput(f"expected a Constant of numbers, got one with {', '.join(attributes)}")


def _run(step: Step, constants: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    try:
        return step(constants)
    except UnsupportedOperator as error:
        raise UnusableInput(f"{step.name} asks for {error}") from None
    except Exception as error:  # a hostile graph can make any operator fail in any way
        raise UnusableInput(f"{step.name} cannot be computed: {first_line(error)}") from None
