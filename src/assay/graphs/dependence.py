"""Dependence analysis: input-dependent values of a graph, and paths from the input without trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from assay.graphs.ir import ComputationGraph, Node

# Operators that apply learned weights, including embedding lookups.
WEIGHTED = frozenset(
    {
        *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"),
        *("LSTM", "GRU", "RNN", "Einsum", "Gather", "com.microsoft.FusedConv", "com.microsoft.FusedMatMul"),
    }
)
DYNAMIC_SHAPE = frozenset({"NonZero", "Compress", "Unique"})  # the result's length depends on the input's values
SHAPE_ONLY = frozenset({"Shape", "Size"})  # depends on the input's values only if its shape does

# A matrix with fewer weights, or fewer distinct values, is not considered trained, with one exception: a large matrix
# (MANY_WEIGHTS, at least FILLED of them nonzero) needs only two values, because models are quantized to few bits.
MIN_WEIGHTS, MIN_DISTINCT_VALUES = 64, 17
MANY_WEIGHTS, FILLED = 1000, 0.1

# If one weight in each row is this many times as large as all others together, the matrix only copies its input.
COPY_RATIO = 50.0
SAMPLED_WEIGHTS = 4096  # weights per matrix that are inspected first

# Hand-made weights with a little noise. Trained weights have no gaps in their distribution: of a few groups of them,
# the spread within the groups is a third of the total spread and more.
MAX_GROUPS, MAX_SPREAD_WITHIN = 16, 2e-3
MIN_DISTINCT = 0.5  # fraction of the weights; quantized weights repeat exactly, and count as trained
# Fraction of the squared size that one direction holds in a matrix of copies of one row.
COPIED_ROWS = 0.999
MIN_ROWS, MAX_ROWS = 4, 32
# Median size of trained weights stays far below this; steps of 8-bit images need factors of 255.
MAX_MEDIAN_WEIGHT = 100.0


@dataclass(frozen=True)
class Value:
    """Analysis of one value."""

    input_dependent: bool = False  # depends on the input's values
    bypasses_weights: bool = False  # along a path without trained weights
    dynamic_shape: bool = False  # its length depends on the input's values
    constant: np.ndarray | None = None  # if not input-dependent: the largest constant that it is computed from


def analyze_values(graph: ComputationGraph) -> dict[str, Value]:
    """Analyze every value of ``graph``, by name."""
    known: dict[str, Value] = {name: Value(constant=array) for name, array in graph.constants.items()}
    known |= {name: Value(input_dependent=True, bypasses_weights=True) for name in graph.sources}
    for node in graph.nodes:
        known.update(dict.fromkeys(node.outputs, _output_value(node, known)))
    return known


def _output_value(node: Node, known: Mapping[str, Value]) -> Value:
    inputs = [known.get(name, Value()) for name in node.inputs]
    dependent = any(value.input_dependent for value in inputs)
    dynamic_shape = any(value.dynamic_shape for value in inputs) or (node.op in DYNAMIC_SHAPE and dependent)
    if not dependent or (node.op in SHAPE_ONLY and not dynamic_shape):
        arrays = [value.constant for value in inputs if value.constant is not None and node.op not in SHAPE_ONLY]
        return Value(constant=max(arrays, key=np.size, default=None))
    matrices = [known.get(name, Value()) for name in _matrices(node)] if node.op in WEIGHTED else []
    weighted = any(
        looks_trained(value.constant) for value in matrices if not value.input_dependent and value.constant is not None
    )
    bypasses_weights = not weighted and any(value.bypasses_weights for value in inputs)
    return Value(input_dependent=True, bypasses_weights=bypasses_weights, dynamic_shape=dynamic_shape)


def _matrices(node: Node) -> tuple[str, ...]:
    """Return the factors among the inputs of a ``WEIGHTED`` node, without biases and scales."""
    if node.op.startswith("QLinear"):
        return (*node.inputs[:1], *node.inputs[3:4])
    if node.op in ("LSTM", "GRU", "RNN"):
        return node.inputs[1:3]
    return node.inputs if node.op == "Einsum" else node.inputs[:2]


def has_trained_weights(graph: ComputationGraph) -> bool:
    """Check for weights that look trained. Without any, a path without trained weights is no evidence."""
    return any(looks_trained(array) for array in graph.constants.values() if array.ndim > 1)


def looks_trained(weights: np.ndarray) -> bool:
    """Check whether ``weights`` look trained: many weights, many distinct values, no whole numbers.

    Weights of quantized layers are 8-bit integers.
    """
    floating = bool(np.issubdtype(weights.dtype, np.floating))
    if weights.size < MIN_WEIGHTS or not (floating or weights.dtype.itemsize == 1):
        return False
    if floating and weights.ndim > 1 and _only_copies(weights):
        return False
    sample = weights.reshape(-1)[:: max(1, weights.size // SAMPLED_WEIGHTS)]
    if len(np.unique(sample[sample != 0])) < MIN_DISTINCT_VALUES:
        sample = weights.reshape(-1)
    distinct = len(np.unique(sample[sample != 0]))
    large = sample.size >= MANY_WEIGHTS and np.mean(sample != 0) >= FILLED
    if distinct < MIN_DISTINCT_VALUES and not (distinct >= 2 and large):
        return False
    return not (floating and (np.array_equal(sample, np.round(sample)) or _looks_hand_made(weights, sample)))


def _looks_hand_made(weights: np.ndarray, sample: np.ndarray) -> bool:
    """Check for hand-made weights with noise: few levels, copies of one row, or large factors.

    Args:
        weights: All weights.
        sample: Some of them, flat.
    """
    values = np.sort(sample[sample != 0].astype(np.float64))
    if not np.isfinite(values).all():
        return False
    if np.median(np.abs(values)) > MAX_MEDIAN_WEIGHT:
        return True
    gaps = np.argsort(np.diff(values))[-(MAX_GROUPS - 1) :]
    within = sum(group.size * group.var() for group in np.split(values, np.sort(gaps) + 1))
    spread = within / max(values.size * values.var(), 1e-300)
    repeats = weights.size >= MANY_WEIGHTS and len(np.unique(values)) <= MIN_DISTINCT * values.size
    if values.size > 2 * MAX_GROUPS and not repeats and spread < MAX_SPREAD_WITHIN:
        return True
    return weights.ndim > 1 and _has_copied_rows(weights)


def _has_copied_rows(weights: np.ndarray) -> bool:
    """Check whether all rows of a matrix are multiples of one row, up to noise."""
    rows = weights.reshape(len(weights), -1)
    rows = rows[:: max(1, len(rows) // MAX_ROWS), : SAMPLED_WEIGHTS // 4].astype(np.float64)
    if min(rows.shape) < MIN_ROWS:
        return False
    sizes = np.linalg.eigvalsh(rows @ rows.T)
    return bool(sizes[-1] > COPIED_ROWS * max(sizes.sum(), 1e-300))


def _only_copies(weights: np.ndarray) -> bool:
    """Check whether each row, or each column, has one dominant weight."""
    sizes = np.abs(weights.reshape(len(weights), -1).astype(np.float64))
    return any(
        table.shape[1] > 1 and bool((table.max(1) * (1 + 1 / COPY_RATIO) > table.sum(1)).all())
        for table in (sizes, sizes.T)
    )
