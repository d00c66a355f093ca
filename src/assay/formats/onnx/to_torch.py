"""An ONNX graph as a torch module with gradients to its input: what ONNX Runtime computes, node by node.

Quantized graphs (QuantizeLinear and DequantizeLinear around each operator) too: gradients pass the rounding as if it
were not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from assay.core.errors import UnusableInput, first_line
from assay.formats.onnx.arguments import DTYPES, Unsupported
from assay.formats.onnx.module import OnnxGraph, Step
from assay.formats.onnx.operators import OPERATORS

if TYPE_CHECKING:
    import onnx

STANDARD = ("", "ai.onnx")
MOST_NODES = 100_000
MOST_NUMBERS = 16  # in a constant that says how an operator works: a shape, axes, a scale


def as_torch(model: onnx.ModelProto, path: Path, *, source: str, result: str) -> OnnxGraph:
    """The graph of ``model``, read from ``path``, from its input ``source`` to its output ``result``.

    What depends on no input is computed once, here. Raises UnusableInput, with the operator's name, for what is not
    written in ``models.onnx_operators``, and for a graph that is not in order.
    """
    graph, opset = model.graph, _opset(model)
    if len(graph.node) > MOST_NODES:
        raise UnusableInput(f"{path}: expected at most {MOST_NODES} nodes, came {len(graph.node)}")
    constants = _initializers(graph, path)
    steps: list[Step] = []
    later: set[str] = {source}
    for node in graph.node:
        step = _step(node, opset, path)
        absent = [name for name in step.inputs if name and name not in constants and name not in later]
        if absent:
            raise UnusableInput(f"{path}: {step.name} reads {absent[0]!r}, which nothing before it makes")
        known = {
            place: constants[name].tolist()
            for place, name in enumerate(step.inputs)
            if name in constants and constants[name].numel() <= MOST_NUMBERS
        }
        step = replace(step, attributes={**step.attributes, "known": known})
        if later.isdisjoint(step.inputs):
            constants.update(zip(step.outputs, _computed(step, constants, path), strict=False))
        else:
            steps.append(step)
            later.update(step.outputs)
    if result not in later:
        raise UnusableInput(f"{path}: its output {result!r} does not depend on its input")
    needed = _needed(steps, result)
    used = {name for step in needed for name in step.inputs}
    return OnnxGraph(needed, {name: value for name, value in constants.items() if name in used}, source, result).eval()


def _needed(steps: Sequence[Step], result: str) -> list[Step]:
    """The steps that ``result`` depends on."""
    wanted, kept = {result}, []
    for step in reversed(steps):
        if not wanted.isdisjoint(step.outputs):
            kept.append(step)
            wanted.update(step.inputs)
    return kept[::-1]


def _opset(model: onnx.ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in STANDARD), default=1)


def _initializers(graph: onnx.GraphProto, path: Path) -> dict[str, Tensor]:
    from onnx import numpy_helper

    return {
        tensor.name: _tensor(numpy_helper.to_array(tensor, base_dir=str(path.parent)), path, tensor.name)
        for tensor in graph.initializer
    }


def _tensor(array: Any, path: Path, name: str) -> Tensor:
    try:
        value = torch.from_numpy(array.copy())
    except TypeError:
        raise UnusableInput(f"{path}: {name!r} holds values of the type {array.dtype}, which torch has not") from None
    return value.float() if value.dtype == torch.float16 else value


def _step(node: onnx.NodeProto, opset: int, path: Path) -> Step:
    name = node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"
    if name not in OPERATORS:
        raise UnusableInput(f"{path}: the operator {name} is not among those that gradients are known for")
    attributes = {attribute.name: _value(attribute, path) for attribute in node.attribute}
    attributes |= {"opset": opset, "outputs": len(node.output)}
    if name == "Constant" and "value" not in attributes:
        attributes["value"] = _constant(attributes, path)
    while node.input and not node.input[-1]:
        node.input.pop()  # left out at the end: as if it were not there
    return Step(OPERATORS[name], attributes, tuple(node.input), tuple(node.output), node.name or name)


def _value(attribute: onnx.AttributeProto, path: Path) -> Any:
    from onnx import AttributeProto, helper, numpy_helper

    if attribute.type == AttributeProto.TENSOR:
        return _tensor(numpy_helper.to_array(attribute.t, base_dir=str(path.parent)), path, attribute.name)
    return helper.get_attribute_value(attribute)


def _constant(attributes: Mapping[str, Any], path: Path) -> Tensor:
    for name, dtype in (("value_float", 1), ("value_floats", 1), ("value_int", 7), ("value_ints", 7)):
        if name in attributes:
            return torch.tensor(attributes[name], dtype=DTYPES[dtype])
    raise UnusableInput(f"{path}: a Constant of numbers was expected, came one with {', '.join(attributes)}")


def _computed(step: Step, constants: Mapping[str, Tensor], path: Path) -> tuple[Tensor, ...]:
    try:
        return step(constants)
    except Unsupported as error:
        raise UnusableInput(f"{path}: {step.name} asks for {error}") from None
    except Exception as error:  # a hostile graph can make any operator fail in any way
        raise UnusableInput(f"{path}: {step.name} cannot be computed: {first_line(error)}") from None
