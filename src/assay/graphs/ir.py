"""Computation graphs read from ONNX models: nodes, constants and the data flow between them.

Bodies of branches and loops are inlined between the surrounding nodes. Functions are inlined at their calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.core.errors import UnusableInput, first_line
from assay.formats.onnx.slicing import MAX_NODES, nodes_for

if TYPE_CHECKING:
    import onnx

MAX_DEPTH = 16  # of nested bodies; protobuf itself reads about 30 levels
# Operators that draw random numbers.
RANDOM_OPERATORS = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
SCOPES_KEY = "pkg.torch.onnx.name_scopes"  # PyTorch's exporter stores the module of each node under this key


@dataclass(frozen=True)
class Node:
    """One operator call of a graph."""

    name: str
    op: str  # prefixed with its domain, unless that is the standard domain
    inputs: tuple[str, ...]  # without omitted optional inputs
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict, repr=False)
    module: str = ""  # module that it was exported from, if the file names it


@dataclass(frozen=True)
class ComputationGraph:
    """Nodes in execution order, with constants, inputs and outputs."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    sources: tuple[str, ...]  # names of the graph's inputs
    results: tuple[str, ...]  # names of the graph's outputs

    def producers(self) -> dict[str, Node]:
        """Return the node that computes each value."""
        return {name: node for node in self.nodes for name in node.outputs}

    def consumers(self) -> dict[str, list[Node]]:
        """Return the nodes that read each value."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                readers.setdefault(name, []).append(node)
        return readers


def subgraph_of(graph: ComputationGraph, result: str) -> ComputationGraph:
    """Return the part of ``graph`` behind one output.

    Args:
        graph: Graph with one or more outputs.
        result: Name of the output.
    """
    nodes, used = nodes_for(graph.nodes, result)
    constants = {name: array for name, array in graph.constants.items() if name in used}
    return ComputationGraph(tuple(nodes), constants, graph.sources, (result,))


def graph_from_onnx(model: onnx.ModelProto, folder: Path) -> ComputationGraph:
    """Read the graph of an ONNX model.

    Args:
        model: ONNX model.
        folder: Folder of its external data; the caller has checked their paths.

    Raises:
        UnusableInput: The graph is too large or malformed.
    """
    from onnx import inliner

    if model.functions:
        try:
            model = inliner.inline_local_functions(model)
        except Exception as error:  # RuntimeError, and with a hostile file any type
            raise UnusableInput(f"expected an ONNX graph with valid functions, got: {first_line(error)}") from None
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
            raise UnusableInput(f"expected a graph of at most {MAX_NODES} nodes, got more")
    given = {tensor.name for tensor in model.graph.initializer}
    sources = tuple(value.name for value in model.graph.input if value.name not in given)
    if not sources:
        raise UnusableInput("expected a graph with an input, got none")
    return ComputationGraph(tuple(nodes), constants, sources, tuple(value.name for value in model.graph.output))


def _flat(graph: onnx.GraphProto, outer: Mapping[str, str], prefix: str, depth: int) -> Iterator[Any]:
    """Yield nodes, and initializers as (name, tensor), under unique names.

    Args:
        graph: Graph or body.
        outer: Unique names of the values of the enclosing graphs.
        prefix: Prefix of the names defined in this body.
        depth: Nesting depth of this body.
    """
    if depth > MAX_DEPTH:
        raise UnusableInput(f"expected at most {MAX_DEPTH} nested graphs, got more")
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
    """Yield the nodes of the bodies of ``node``, then ``node`` itself with the bodies' results as extra inputs."""
    from onnx import AttributeProto, helper

    op = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    given = tuple(names.get(value, value) for value in node.input if value)
    attributes, results = {}, []
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            own = f"{prefix}{name}/{attribute.name}/"
            # The inputs of a loop's body depend on all inputs of the loop: precise enough for this analysis.
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
    """Return the innermost module of an exporter's scope list, such as "['', 'net', 'net.conv1', 'conv2d']"."""
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
    except Exception as error:  # a hostile tensor can raise any type
        raise UnusableInput(
            f"expected a readable tensor {tensor.name!r} in the graph, got: {first_line(error)}"
        ) from None
