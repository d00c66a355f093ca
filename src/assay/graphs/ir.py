"""A computation graph as it stands in an ONNX file: nodes, constants, and what each value is made from.

Bodies of branches and loops stand between the nodes around them, functions in place of their calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.core.errors import UnusableInput, first_line

if TYPE_CHECKING:
    import onnx

MAX_NODES = 100_000
SCOPES_KEY = "pkg.torch.onnx.name_scopes"
"""Where PyTorch's exporter writes which module a node comes from."""


@dataclass(frozen=True)
class Node:
    """One operator of a graph."""

    name: str
    op: str  # with its domain in front, where that is not the standard's
    inputs: tuple[str, ...]  # without those that are left out
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict, repr=False)
    module: str = ""  # that it was exported from, where the file says


@dataclass(frozen=True)
class ComputationGraph:
    """Nodes in the order in which they are computed."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    sources: tuple[str, ...]  # inputs that the user gives
    results: tuple[str, ...]

    def made_by(self) -> dict[str, Node]:
        """The node that each value comes from."""
        return {name: node for node in self.nodes for name in node.outputs}

    def read_by(self) -> dict[str, list[Node]]:
        """The nodes that read each value."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                readers.setdefault(name, []).append(node)
        return readers


def subgraph_of(flow: ComputationGraph, result: str) -> ComputationGraph:
    """What of ``flow`` has a part in its ``result``: other outputs are nobody's answer."""
    wanted, nodes = {result}, []
    for node in reversed(flow.nodes):
        if not wanted.isdisjoint(node.outputs):
            wanted.update(node.inputs)
            nodes.append(node)
    constants = {name: array for name, array in flow.constants.items() if name in wanted}
    return ComputationGraph(tuple(reversed(nodes)), constants, flow.sources, (result,))


def graph_from_onnx(model: onnx.ModelProto, folder: Path) -> ComputationGraph:
    """The graph of ``model``, whose external data lie in ``folder`` (checked by whoever read it).

    Raises UnusableInput for a graph that is too large or not in order.
    """
    from onnx import inliner

    if model.functions:
        try:
            model = inliner.inline_local_functions(model)
        except Exception as error:  # the inliner's errors are plain RuntimeErrors, with a hostile file of any kind
            raise UnusableInput(f"the functions of its graph cannot be put in place: {first_line(error)}") from None
    constants: dict[str, np.ndarray] = {}
    nodes: list[Node] = []
    for item in _flat(model.graph, {}, "", depth=0):
        if isinstance(item, Node) and item.op == "Constant":
            constants[item.outputs[0]] = _value(item.attributes)
        elif isinstance(item, Node):
            nodes.append(item)
        else:
            name, tensor = item
            constants[name] = _array(tensor, folder)
        if len(nodes) > MAX_NODES:
            raise UnusableInput(f"expected a graph of at most {MAX_NODES} nodes; this one has more")
    given = {tensor.name for tensor in model.graph.initializer}
    sources = tuple(value.name for value in model.graph.input if value.name not in given)
    if not sources:
        raise UnusableInput("expected a graph with an input; this one has none")
    return ComputationGraph(tuple(nodes), constants, sources, tuple(value.name for value in model.graph.output))


MAX_DEPTH = 16
"""Bodies within bodies; protobuf itself reads no more than about 30."""


def _flat(graph: onnx.GraphProto, outer: Mapping[str, str], prefix: str, depth: int) -> Iterator[Any]:
    """Nodes, and initializers as (name, tensor), under names that no other body has.

    ``outer``: what names mean outside; ``prefix``: of the names that are this graph's own.
    """
    if depth > MAX_DEPTH:
        raise UnusableInput(f"expected graphs at most {MAX_DEPTH} deep within one another; this one is deeper")
    names = dict(outer)
    names |= {value.name: f"{prefix}{value.name}" for value in graph.input} if prefix else {}
    for tensor in graph.initializer:
        names[tensor.name] = f"{prefix}{tensor.name}"
        yield names[tensor.name], tensor
    for sparse in graph.sparse_initializer:
        names[sparse.values.name] = f"{prefix}{sparse.values.name}"
        yield names[sparse.values.name], sparse.values
    for number, node in enumerate(graph.node):
        yield from _with_bodies(node, node.name or f"{node.op_type}_{number}", names, prefix, depth)
        names |= {value: f"{prefix}{value}" for value in node.output if value}


def _with_bodies(node: onnx.NodeProto, name: str, names: Mapping[str, str], prefix: str, depth: int) -> Iterator[Any]:
    """The node, behind the nodes of the graphs inside it, whose results it then reads too."""
    from onnx import AttributeProto, helper

    op = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    given = tuple(names.get(value, value) for value in node.input if value)
    attributes, results = {}, []
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            own = f"{prefix}{name}/{attribute.name}/"
            # A loop's body reads what the loop is given; which of it, does not matter here.
            yield from (Node(f"{own}{v.name}", "Identity", given, (f"{own}{v.name}",)) for v in attribute.g.input)
            inner = list(_flat(attribute.g, names, own, depth + 1))
            yield from inner
            made = {value for item in inner if isinstance(item, Node) for value in item.outputs}
            results += [
                f"{own}{v.name}" if f"{own}{v.name}" in made else names.get(v.name, v.name) for v in attribute.g.output
            ]
        else:
            attributes[attribute.name] = helper.get_attribute_value(attribute)
    scopes = [entry.value for entry in node.metadata_props if entry.key == SCOPES_KEY]
    module = _module(scopes[0]) if scopes else ""
    outputs = tuple(f"{prefix}{value}" for value in node.output if value)
    yield Node(name, op, (*given, *results), outputs, attributes, module)


def _module(scopes: str) -> str:
    """The innermost module of a list as the exporter writes it: "['', 'net', 'net.conv1', 'conv2d']"."""
    names = [part.strip(" '\"[]") for part in scopes.split(",")]
    return names[-2] if len(names) > 1 else ""


def _value(attributes: Mapping[str, Any]) -> np.ndarray:
    given: Any = next(iter(attributes.values()), None)
    if hasattr(given, "raw_data"):
        return _array(given, Path())
    array = np.asarray(given if given is not None else [])
    return array if array.dtype.kind in "fiub" else np.zeros(0)


def _array(tensor: onnx.TensorProto, folder: Path) -> np.ndarray:
    from onnx import numpy_helper

    try:
        return numpy_helper.to_array(tensor, base_dir=str(folder))
    except Exception as error:  # a hostile tensor can be broken in any way
        raise UnusableInput(f"a tensor of its graph, {tensor.name!r}, cannot be read: {first_line(error)}") from None
