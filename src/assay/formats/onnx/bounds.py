"""Static limits of ONNX graphs: nesting, number of nodes, turns of loops, and sizes that constants ask for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from assay.core.errors import UnusableInput
from assay.formats.onnx.arguments import MAX_ELEMENTS
from assay.formats.onnx.names import subgraphs
from assay.formats.onnx.slicing import MAX_NODES

if TYPE_CHECKING:
    import onnx

MAX_DEPTH = 32  # of graphs in nodes, and of functions in functions
MAX_TURNS = 100_000  # of nested loops together
MAX_BATCH = 1024  # images of a fixed batch
MAX_BATCH_NUMBERS = 2**26  # values of a fixed batch, 256 MiB
MAX_FACTOR = 4096  # by which one operator may repeat or enlarge its input
SMALL = 64  # numbers of a constant that can configure an operator

Numbers = Mapping[str, list[float]]


def check_bounds(model: onnx.ModelProto, path: Path) -> None:
    """Raise UnusableInput for a graph that asks for far more time or memory than any model needs.

    Sizes that a graph computes are not bounded here.

    Args:
        model: The model.
        path: Its file.
    """
    calls = {(function.domain, function.name): function.node for function in model.functions}
    _Walk(path, calls).count(model.graph.node, 0, ())
    _check_tensors(model.graph, path)
    _check_graph(model.graph.node, _constants(model.graph), path, 1)
    for function in model.functions:
        _check_graph(function.node, _constant_nodes(function.node), path, 1)


class _Walk:
    """Count of all nodes of a model, with the nodes of each called function."""

    def __init__(self, path: Path, functions: Mapping[tuple[str, str], Sequence[onnx.NodeProto]]) -> None:
        self.path, self.functions = path, functions
        self.counts: dict[tuple[str, str], int] = {}  # nodes behind one call of a function

    def count(self, nodes: Sequence[onnx.NodeProto], depth: int, callers: tuple[tuple[str, str], ...]) -> int:
        """Return the number of nodes, those of graphs and functions in them included.

        Args:
            nodes: Nodes of one graph or function.
            depth: Number of graphs and functions around them.
            callers: Functions around them.
        """
        if depth > MAX_DEPTH:
            raise UnusableInput(
                f"{self.path}: expected graphs nested at most {MAX_DEPTH} deep, got more. Fix: export it again."
            )
        total = 0
        for node in nodes:
            total += 1 + sum(self.count(graph.node, depth + 1, callers) for graph in subgraphs(node))
            call = (node.domain, node.op_type)
            if call in self.functions:
                total += self._count_call(call, depth, callers)
            if total > MAX_NODES:
                raise UnusableInput(
                    f"{self.path}: expected at most {MAX_NODES} nodes, got more. Fix: export a smaller model."
                )
        return total

    def _count_call(self, call: tuple[str, str], depth: int, callers: tuple[tuple[str, str], ...]) -> int:
        if call in callers:
            raise UnusableInput(
                f"{self.path}: expected functions without recursion, got {call[1][:100]!r} within itself. "
                "Fix: export it again."
            )
        if call not in self.counts:
            self.counts[call] = self.count(self.functions[call], depth + 1, (*callers, call))
        return self.counts[call]


def refuse_large_batch(batch: int | None, shape: Sequence[int], path: Path) -> None:
    """Raise UnusableInput for a fixed batch that is empty or larger than any deployed one.

    Args:
        batch: Number of images; None: any.
        shape: (C, H, W) of one image.
        path: The file.
    """
    if batch is None:
        return
    if not 0 < batch <= MAX_BATCH or batch * math.prod(shape) > MAX_BATCH_NUMBERS:
        raise UnusableInput(
            f"{path}: expected a batch of 1 to {MAX_BATCH} images and at most {MAX_BATCH_NUMBERS} values, "
            f"got a fixed batch of {batch} images {tuple(shape)}. Fix: export it with an open batch axis."
        )


def _check_tensors(graph: onnx.GraphProto, path: Path) -> None:
    """Raise UnusableInput for constants of impossible sizes."""
    shapes = [(tensor.name, list(tensor.dims)) for tensor in graph.initializer]
    shapes += [(tensor.values.name, list(tensor.dims)) for tensor in graph.sparse_initializer]
    limits = [2**33] * len(graph.initializer) + [MAX_ELEMENTS] * len(graph.sparse_initializer)
    for (name, shape), limit in zip(shapes, limits, strict=True):
        if any(side < 0 for side in shape) or math.prod(shape) > limit:
            raise UnusableInput(
                f"{path}: expected constants of at most {limit} values, got {name[:100]!r} of shape {shape[:8]}. "
                "Fix: export it again."
            )


def _constants(graph: onnx.GraphProto) -> Numbers:
    """Return the small constants of a graph by name."""
    found = {tensor.name: _numbers(tensor) for tensor in graph.initializer if math.prod(tensor.dims) <= SMALL}
    return {**{name: numbers for name, numbers in found.items() if numbers}, **_constant_nodes(graph.node)}


def _constant_nodes(nodes: Sequence[onnx.NodeProto]) -> Numbers:
    found = {}
    for node in nodes:
        if node.op_type == "Constant" and len(node.output) == 1:
            for attribute in node.attribute:
                numbers = [*attribute.ints, *attribute.floats]
                if attribute.name == "value" and math.prod(attribute.t.dims) <= SMALL:
                    numbers = _numbers(attribute.t)
                elif attribute.name in ("value_int", "value_float"):
                    numbers = [attribute.i if attribute.name == "value_int" else attribute.f]
                if numbers:
                    found[node.output[0]] = numbers
    return found


def _numbers(tensor: onnx.TensorProto) -> list[float]:
    """Return the numbers of a small tensor; none for one that cannot be read."""
    import onnx
    from onnx import numpy_helper

    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return []
    try:
        return [float(number) for number in numpy_helper.to_array(tensor).reshape(-1)]
    except Exception:  # a malformed tensor; the readers of weights report it
        return []


def _check_graph(nodes: Sequence[onnx.NodeProto], constants: Numbers, path: Path, turns: float) -> None:
    """Raise UnusableInput if constants ask for too many turns of loops or for too large tensors.

    Args:
        nodes: Nodes of the graph.
        constants: Small constants of the graph and of the graphs around it.
        path: The file.
        turns: Turns of the loops around the graph.
    """
    for node in nodes:
        for what, size, limit in _demands(node, constants):
            if not abs(size) <= limit:  # also for NaN
                raise UnusableInput(
                    f"{path}: expected {what} of at most {limit:g} in {node.op_type}, got {size:g}. "
                    "Fix: export it again; no model needs that much."
                )
        inner_turns = turns
        if node.op_type == "Loop" and node.input and node.input[0] in constants:
            inner_turns *= max(1.0, constants[node.input[0]][0])
            if not inner_turns <= MAX_TURNS:
                raise UnusableInput(
                    f"{path}: expected loops of at most {MAX_TURNS} turns together, got {inner_turns:g}. "
                    "Fix: export it with fewer turns."
                )
        for graph in subgraphs(node):
            _check_tensors(graph, path)
            _check_graph(graph.node, {**constants, **_constants(graph)}, path, inner_turns)


def _demands(node: onnx.NodeProto, constants: Numbers) -> Iterator[tuple[str, float, float]]:
    """Yield the sizes that the constants of one node ask for: a name, the size, and its limit."""
    given = [constants.get(name) for name in node.input] + [None] * 4
    operator = node.op_type
    shape = {"ConstantOfShape": 0, "Expand": 1, "CenterCropPad": 1}.get(operator)
    if shape is not None and (sides := given[shape]) is not None:
        yield "a tensor", math.prod(abs(side) for side in sides), MAX_ELEMENTS
    elif operator == "Tile" and given[1] is not None:
        yield "repetitions", math.prod(given[1]), MAX_FACTOR
    elif operator == "Range" and given[0] and given[1] and given[2]:
        yield "numbers", (given[1][0] - given[0][0]) / given[2][0] if given[2][0] else math.inf, MAX_ELEMENTS
    elif operator in ("Resize", "Upsample"):
        scales = given[2] if operator == "Resize" and len(node.input) > 2 else given[1]
        if scales is not None and len(scales) > 2:
            yield "a factor", math.prod(scales), MAX_FACTOR
        if given[3] is not None:
            yield "a tensor", math.prod(given[3]), MAX_ELEMENTS
    elif operator == "Pad" and given[1] is not None:
        yield "a padding", max(map(abs, given[1]), default=0), MAX_FACTOR
    elif operator in ("OneHot", "DFT", "HannWindow", "HammingWindow", "BlackmanWindow"):
        size = given[0] if operator.endswith("Window") else given[1]
        if size:
            yield "a size", size[0], MAX_FACTOR * 64
    yield from _attribute_demands(node)


def _attribute_demands(node: onnx.NodeProto) -> Iterator[tuple[str, float, float]]:
    for attribute in node.attribute:
        if attribute.name in ("pads", "strides", "output_shape", "output_padding") and attribute.ints:
            largest = max(map(abs, attribute.ints))
            if node.op_type != "AveragePool" or attribute.name == "pads":  # a global pool may have any stride
                yield attribute.name, largest, MAX_FACTOR
        elif attribute.name == "shape" and attribute.ints:
            yield "a tensor", math.prod(map(abs, attribute.ints)), MAX_ELEMENTS
        elif attribute.name in ("output_height", "output_width"):
            yield attribute.name, attribute.i, MAX_FACTOR
        elif attribute.name == "scales" and attribute.floats:
            yield "a factor", math.prod(attribute.floats), MAX_FACTOR
