"""Batch analysis of an ONNX graph: the size of the batch as a number, and samples that depend on each other.

The sizes of all values are inferred for several batch sizes. An axis whose size changes holds the samples. Values that
depend on the sizes alone are computed for each batch size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

    Values = dict[str, np.ndarray]

BATCHES = (7, 11)  # primes, so that multiples differ
ROUNDS = 8  # of shape inference: computed sizes make further shapes known
MAX_ELEMENTS = 4096  # of a constant that may be a shape; larger ones are weights

# Input positions that set the shape or the position of numbers, and not the numbers.
SHAPE_SLOTS: Mapping[str, frozenset[int]] = {
    **dict.fromkeys(("Reshape", "Expand", "Tile", "Unsqueeze", "Squeeze", "Split", "TopK", "OneHot"), frozenset({1})),
    **dict.fromkeys(("Gather", "GatherND", "GatherElements", "ScatterND", "ScatterElements"), frozenset({1})),
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2"), frozenset({1})),
    **dict.fromkeys(("CumSum", "Trilu", "CenterCropPad", "AffineGrid", "Range"), frozenset({1})),
    "ConstantOfShape": frozenset({0}),
    "Slice": frozenset({1, 2, 3, 4}),
    "Resize": frozenset({1, 2, 3}),
    "Pad": frozenset({1, 3}),
}
# Operators whose inputs set the size of their output.
ENLARGING = frozenset(
    {"ConstantOfShape", "Expand", "Tile", "Pad", "Resize", "Upsample", "Range", "OneHot", "CenterCropPad"}
)
# Positions are data, if a table without samples is looked up: a table of answers by batch size.
TABLES = frozenset({"Gather", "GatherND", "GatherElements"})
# Operators that choose a part of a shape. The part may hold other sizes than the batch's.
CHOOSING = frozenset({"Gather", "GatherND", "GatherElements", "Slice", "Split", "Compress"})
# Operators that put together or move positions.
ARRANGING = frozenset({"Concat", "Unsqueeze", "Squeeze", "Reshape", "Expand", "Transpose", "Cast", "Identity"})
# Its scale is of the whole batch by definition. Dynamically quantized models consist of it.
WHOLE_BATCH = frozenset({"DynamicQuantizeLinear", "Shape", "Size"})


@dataclass(frozen=True)
class BatchEffects:
    """Nodes by which an answer depends on the batch. None: not found."""

    size_as_number: str | None = None  # a node that computes with the number of samples
    mixing: str | None = None  # a node whose output for one sample depends on the others


@dataclass
class _Sizes:
    """Shapes and numbers for one batch size."""

    batch: int
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    numbers: dict[str, np.ndarray] = field(default_factory=dict)  # computed from shapes and constants alone


def find_batch_effects(model: onnx.ModelProto, used: frozenset[str]) -> BatchEffects:
    """Find the nodes by which an answer depends on the size or on the other samples of its batch.

    Args:
        model: The graph, with an open batch size as the first axis of its inputs.
        used: Names of the values behind the answer.

    Raises:
        Exception: The graph is malformed; any error of onnx.
    """
    from onnx import inliner

    if model.functions:
        model = inliner.inline_local_functions(model)
    nodes = [node for node in model.graph.node if node.op_type == "Constant" or not used.isdisjoint(node.output)]
    dependent = _input_dependent(model.graph, nodes)
    sizes = [_infer(model, nodes, dependent, batch) for batch in BATCHES]
    axes: dict[str, frozenset[int]] = {}  # axes whose length depends on the size of the batch, of each value
    for name, small in sizes[0].shapes.items():
        large = sizes[1].shapes.get(name)
        if large is not None and len(small) == len(large):
            axes[name] = frozenset(axis for axis in range(len(small)) if small[axis] != large[axis])
    return BatchEffects(_find_number(nodes, dependent, sizes), _find_mixing(nodes, dependent, axes, sizes))


def _inputs(node: onnx.NodeProto) -> Iterator[str]:
    """Yield all values that a node reads, those inside its bodies included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from _inputs(inner)


def _input_dependent(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Return the values that depend on the numbers of the input, and not only on its shape."""
    constants = {tensor.name for tensor in graph.initializer}
    found = {value.name for value in graph.input if value.name not in constants}
    for node in nodes:
        if node.op_type not in ("Shape", "Size") and not found.isdisjoint(_inputs(node)):
            found.update(node.output)
    return found


def _infer(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], dependent: set[str], batch: int) -> _Sizes:
    """Infer shapes, and compute the numbers that depend on shapes alone, until nothing new is known."""
    from onnx import numpy_helper

    constants = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if np.prod(tensor.dims, dtype=np.int64) <= MAX_ELEMENTS and not tensor.external_data
    }
    sizes = _Sizes(batch)
    for _ in range(ROUNDS):
        before = len(sizes.shapes), len(sizes.numbers)
        sizes.shapes |= _inferred_shapes(model, nodes, batch, sizes.numbers)
        _compute_numbers(nodes, dependent, sizes, constants, list(model.opset_import))
        if before == (len(sizes.shapes), len(sizes.numbers)):
            break
    return sizes


def _inferred_shapes(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], batch: int, numbers: Values
) -> dict[str, tuple[int, ...]]:
    """Return the complete shapes of all values, by the shape inference of onnx.

    Args:
        model: The graph.
        nodes: The nodes to consider.
        batch: Number of samples.
        numbers: Known values, which replace their nodes.
    """
    import onnx
    from onnx import helper, numpy_helper, shape_inference

    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = light.graph
    graph.name = "shapes"
    given = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in given:
            graph.input.add().CopyFrom(value)
            dims = graph.input[-1].type.tensor_type.shape.dim
            if len(dims):
                dims[0].Clear()
                dims[0].dim_value = batch
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims, dtype=np.int64) <= MAX_ELEMENTS:
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    replaced = {name for name, array in numbers.items() if array.size <= MAX_ELEMENTS}
    graph.initializer.extend(numpy_helper.from_array(numbers[name], name) for name in sorted(replaced))
    graph.node.extend(node for node in nodes if not replaced.issuperset(node.output))
    last = nodes[-1].output[0]
    graph.output.append(helper.make_empty_tensor_value_info(last))
    inferred = shape_inference.infer_shapes(light, data_prop=True)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        tensor_type = value.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor_type.shape.dim]
        if tensor_type.HasField("shape") and min(dims, default=0) >= 0:
            shapes[value.name] = tuple(dims)
    return shapes


def _compute_numbers(
    nodes: Sequence[onnx.NodeProto], dependent: set[str], sizes: _Sizes, constants: Values, opset: Any
) -> None:
    """Compute the values that depend on shapes alone, as far as the shapes are known.

    Args:
        nodes: The nodes.
        dependent: Values that depend on the numbers of the input.
        sizes: Known shapes; receives the values.
        constants: Small constants by name.
        opset: Operator sets of the model.
    """
    for node in nodes:
        if node.output[0] in sizes.numbers or node.output[0] in dependent:
            continue
        if node.op_type in ("Shape", "Size"):
            if (shape := sizes.shapes.get(node.input[0])) is not None:
                sizes.numbers[node.output[0]] = _shape_numbers(node, shape)
            continue
        names = list(_inputs(node))
        found = {name: sizes.numbers.get(name, constants.get(name)) for name in names}
        if any(array is None for array in found.values()) or (not names and node.op_type != "Constant"):
            continue
        if (results := _run_node(node, found, opset)) is not None:
            sizes.numbers.update(zip(node.output, results, strict=False))


def _shape_numbers(node: onnx.NodeProto, shape: tuple[int, ...]) -> np.ndarray:
    if node.op_type == "Size":
        return np.asarray(np.prod(shape, dtype=np.int64))
    limits = {attribute.name: attribute.i for attribute in node.attribute}
    return np.asarray(shape[limits.get("start", 0) : limits.get("end", len(shape))], dtype=np.int64)


def _run_node(node: onnx.NodeProto, given: Mapping[str, Any], opset: Any) -> list[np.ndarray] | None:
    """Return the outputs of one node without inputs from outside, or None if it cannot run or is large."""
    from onnx import helper, reference

    if any(attribute.HasField("g") for attribute in node.attribute) or not _is_bounded(node, given):
        return None
    inputs = [helper.make_empty_tensor_value_info(name) for name in given]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "one", inputs, outputs)
    try:
        found = reference.ReferenceEvaluator(helper.make_model(graph, opset_imports=opset)).run(None, dict(given))
    except Exception:  # operators of other domains, and nodes of hostile files
        return None
    arrays = [np.asarray(array) for array in found]
    return arrays if all(array.size <= 64 * MAX_ELEMENTS for array in arrays) else None


def _is_bounded(node: onnx.NodeProto, given: Mapping[str, np.ndarray]) -> bool:
    """Return whether a node that makes arrays of a given size makes a small one: a hostile file asks for any size."""
    if node.op_type not in ENLARGING:
        return True
    numbers = [array for array in given.values() if array.dtype.kind in "iuf" and array.size <= 64]
    return all(float(np.prod(np.abs(array[array != 0], dtype=np.float64))) <= 64 * MAX_ELEMENTS for array in numbers)


def _find_number(nodes: Sequence[onnx.NodeProto], dependent: set[str], sizes: Sequence[_Sizes]) -> str | None:
    """Return the first node at which a number that follows the batch size joins a value of the input."""
    follows: set[str] = set()
    positions = _read_as_positions(nodes)
    for node in nodes:
        slots = SHAPE_SLOTS.get(node.op_type, frozenset())
        # A position in a table of constants is data.
        if node.op_type in TABLES and node.input[0] not in dependent:
            slots = frozenset()
        data = {name for slot, name in enumerate(node.input) if name and slot not in slots}
        data |= set(_inputs(node)) - set(node.input)
        joined = data & follows
        if joined and positions.issuperset(node.output):  # row and column of a token, for instance
            follows.update(node.output)
            continue
        if joined and not dependent.isdisjoint(node.output):
            return f"{node.op_type} {node.name}"
        if dependent.isdisjoint(node.output):
            # A comparison with a large number is the same for all small batches.
            computed = joined and not (node.op_type in CHOOSING and joined == {node.input[0]})
            follows |= {name for name in node.output if computed or _differs(name, sizes)}
    return None


def _read_as_positions(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Return the values that other nodes read as shapes or positions only, directly or put together with others."""
    read: set[str] = set()
    otherwise: set[str] = set()
    for node in reversed(nodes):
        arranges = node.op_type in ARRANGING and all(name in read and name not in otherwise for name in node.output)
        slots = SHAPE_SLOTS.get(node.op_type, frozenset())
        for slot, name in enumerate(node.input):
            (read if arranges or slot in slots else otherwise).add(name)
        otherwise |= set(_inputs(node)) - set(node.input)
    return read - otherwise


def _differs(name: str, sizes: Sequence[_Sizes]) -> bool:
    """Return whether the numbers of a value differ between batch sizes, or between the samples of a batch."""
    found = [size.numbers.get(name) for size in sizes]
    one, other = found
    if one is None or other is None or one.ndim != other.ndim:
        return False
    pairs = list(zip(one.shape, other.shape, strict=True))
    common = tuple(slice(min(pair)) for pair in pairs)
    if not np.array_equal(one[common], other[common]):
        return True
    samples = [axis for axis, pair in enumerate(pairs) if min(pair) * BATCHES[1] == max(pair) * BATCHES[0]]
    return any(not _is_equal_for_samples(np.moveaxis(other, axis, 0)) for axis in samples)


def _is_equal_for_samples(numbers: np.ndarray) -> bool:
    """Return whether the numbers (``BATCHES[1]`` * M, ...) are equal for all samples, in either order of the axis."""
    batch = BATCHES[1]
    inner = len(numbers) // batch
    outer = numbers.reshape(batch, inner, *numbers.shape[1:])
    between = numbers.reshape(inner, batch, *numbers.shape[1:]).swapaxes(0, 1)
    return any(bool((rows == rows[:1]).all()) for rows in (outer, between))


def _find_mixing(
    nodes: Sequence[onnx.NodeProto],
    dependent: set[str],
    axes: Mapping[str, frozenset[int]],
    sizes: Sequence[_Sizes],
) -> str | None:
    """Return the first node whose output for one sample depends on other samples."""
    for node in nodes:
        if node.op_type in WHOLE_BATCH or dependent.isdisjoint(node.output):
            continue
        inputs = [name for name in node.input if name in dependent and axes.get(name)]
        outputs = [name for name in node.output if name in axes]
        lost = bool(inputs) and bool(outputs) and not any(axes[name] for name in outputs)
        # An axis may hold another number of entries than a multiple of the samples.
        one, other = ([size.shapes[name][axis] for name in outputs for axis in axes[name]] for size in sizes)
        part = any(small * BATCHES[1] != large * BATCHES[0] for small, large in zip(one, other, strict=True))
        if lost or part or _combines(node, axes, sizes, dependent):
            return f"{node.op_type} {node.name}"
    return None


def _combines(
    node: onnx.NodeProto, axes: Mapping[str, frozenset[int]], sizes: Sequence[_Sizes], dependent: set[str]
) -> bool:
    """Return whether a node computes over the axis of the samples."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    dims = [axes.get(name, frozenset()) if name in dependent else frozenset[int]() for name in node.input]
    ranks = [len(sizes[0].shapes.get(name, ())) for name in node.input]
    first, rank = dims[0] if dims else frozenset[int](), ranks[0] if ranks else 0
    if node.op_type in ("Softmax", "LogSoftmax", "Hardmax"):
        axis = attributes["axis"].i if "axis" in attributes else -1
        return axis % max(rank, 1) in first
    if node.op_type == "LayerNormalization":
        axis = attributes["axis"].i if "axis" in attributes else -1
        return any(place >= axis % max(rank, 1) for place in first)
    if node.op_type == "BatchNormalization":
        return bool(first) and "training_mode" in attributes and bool(attributes["training_mode"].i)
    if node.op_type in ("Conv", "ConvTranspose", "InstanceNormalization", "GroupNormalization"):
        return any(place >= 1 for place in first)
    if node.op_type in ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "LRN"):
        return any(place >= 2 for place in first)
    if node.op_type == "MatMul" and len(dims) == 2:
        return ranks[0] - 1 in dims[0] or (ranks[1] > 1 and ranks[1] - 2 in dims[1])
    if node.op_type == "Gemm":
        turned = [bool(attributes[key].i) if key in attributes else False for key in ("transA", "transB")]
        return (0 if turned[0] else 1) in dims[0] or (1 if turned[1] else 0) in dims[1]
    return False
