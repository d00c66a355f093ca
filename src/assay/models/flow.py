"""A computation graph as it stands in an ONNX file: nodes, constants, and what each value is made from.

Bodies of branches and loops stand between the nodes around them, functions in place of their calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.errors import UnusableInput, first_line

if TYPE_CHECKING:
    import onnx

MOST_NODES = 100_000
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
class Flow:
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


def flow_of(model: onnx.ModelProto, folder: Path) -> Flow:
    """The graph of ``model``, whose external data lie in ``folder`` (checked by whoever read it).

    Raises UnusableInput for a graph that is too large or not in order.
    """
    import onnx
    from onnx import inliner, numpy_helper

    if model.functions:
        try:
            model = inliner.inline_local_functions(model)
        except Exception as error:  # the inliner's errors are plain RuntimeErrors, with a hostile file of any kind
            raise UnusableInput(f"the functions of its graph cannot be put in place: {first_line(error)}") from None
    constants: dict[str, np.ndarray] = {}
    nodes: list[Node] = []
    for item in _flat(model.graph, depth=0):
        if isinstance(item, onnx.TensorProto):
            constants[item.name] = numpy_helper.to_array(item, base_dir=str(folder))
        elif item.op == "Constant":
            constants[item.outputs[0]] = _value(item.attributes)
        else:
            nodes.append(item)
        if len(nodes) > MOST_NODES:
            raise UnusableInput(f"expected a graph of at most {MOST_NODES} nodes; this one has more")
    sources = tuple(value.name for value in model.graph.input if value.name not in constants)
    return Flow(tuple(nodes), constants, sources, tuple(value.name for value in model.graph.output))


DEEPEST = 16
"""Bodies within bodies; protobuf itself reads no more than about 30."""


def _flat(graph: onnx.GraphProto, depth: int) -> Iterator[Any]:
    """Initializers as they are, and nodes as ``Node``."""
    if depth > DEEPEST:
        raise UnusableInput(f"expected graphs at most {DEEPEST} deep within one another; this one is deeper")
    yield from graph.initializer
    for number, node in enumerate(graph.node):
        yield from _with_bodies(node, node.name or f"{node.op_type}_{number}", depth)


def _with_bodies(node: onnx.NodeProto, name: str, depth: int) -> Iterator[Any]:
    """The node, behind the nodes of the graphs inside it, whose results it then reads too."""
    from onnx import AttributeProto, helper

    op = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    given = tuple(value for value in node.input if value)
    attributes, results = {}, []
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            # A loop's body reads what the loop is given; which of it, does not matter here.
            yield from (Node(f"{name}/{value.name}", "Identity", given, (value.name,)) for value in attribute.g.input)
            yield from _flat(attribute.g, depth + 1)
            results += [value.name for value in attribute.g.output]
        else:
            attributes[attribute.name] = helper.get_attribute_value(attribute)
    scopes = [entry.value for entry in node.metadata_props if entry.key == SCOPES_KEY]
    module = _module(scopes[0]) if scopes else ""
    outputs = tuple(value for value in node.output if value)
    yield Node(name, op, (*given, *results), outputs, attributes, module)


def _module(scopes: str) -> str:
    """The innermost module of a list as the exporter writes it: "['', 'net', 'net.conv1', 'conv2d']"."""
    names = [part.strip(" '\"[]") for part in scopes.split(",")]
    return names[-2] if len(names) > 1 else ""


def _value(attributes: Mapping[str, Any]) -> np.ndarray:
    from onnx import numpy_helper

    given: Any = next(iter(attributes.values()), None)
    if hasattr(given, "raw_data"):
        return numpy_helper.to_array(given)
    return np.asarray(given if given is not None else [])
