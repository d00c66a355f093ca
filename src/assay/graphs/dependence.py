"""Which values of a graph depend on the input, and which do so along a way without trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from assay.graphs.ir import ComputationGraph, Node

WEIGHTED = frozenset(
    {
        *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"),
        *("LSTM", "GRU", "RNN", "Einsum", "Gather", "com.microsoft.FusedConv", "com.microsoft.FusedMatMul"),
    }
)
"""Operators that mix what they are given by weights; a table that numbers look up is one of those."""

COUNTS = frozenset({"NonZero", "Compress", "Unique"})
"""Operators whose result is as long as what is in the input makes it."""

OF_SHAPES = frozenset({"Shape", "Size"})
"""What these say of a value says nothing of what is in it, unless that decides how long it is."""

FEWEST_WEIGHTS, FEWEST_VALUES = 64, 17
"""A matrix of fewer weights, or of fewer different ones, was not learned, but for large ones."""

MANY_WEIGHTS, FILLED = 1000, 0.1
"""Of so many, most of them not zero, two values are enough: nets are rounded to few bits."""

ONE_TAP = 50.0
"""Where in each row one weight is so many times as large as all others together, the matrix only moves its input on."""

LOOKED_AT = 4096
"""Of a matrix, weights that are compared."""


@dataclass(frozen=True)
class Value:
    """What is known of a value."""

    derived: bool = False  # it depends on what is in the input
    raw: bool = False  # along a way without trained weights
    counted: bool = False  # how long it is depends on what is in the input
    constant: np.ndarray | None = None  # where it depends on no input: the largest constant that it is made of


def analyze_values(flow: ComputationGraph) -> dict[str, Value]:
    """Every value of ``flow``."""
    known: dict[str, Value] = {name: Value(constant=array) for name, array in flow.constants.items()}
    known |= {name: Value(derived=True, raw=True) for name in flow.sources}
    for node in flow.nodes:
        known.update(dict.fromkeys(node.outputs, _made(node, known)))
    return known


def _made(node: Node, known: Mapping[str, Value]) -> Value:
    given = [known.get(name, Value()) for name in node.inputs]
    counted = any(value.counted for value in given) or (node.op in COUNTS and any(value.derived for value in given))
    of_shape = node.op in OF_SHAPES and not counted
    if of_shape or not any(value.derived for value in given):
        arrays = [value.constant for value in given if value.constant is not None and node.op not in OF_SHAPES]
        return Value(constant=max(arrays, key=np.size, default=None))
    matrices = [known.get(name, Value()) for name in _matrices(node)] if node.op in WEIGHTED else []
    weighted = any(
        looks_trained(value.constant) for value in matrices if not value.derived and value.constant is not None
    )
    return Value(derived=True, raw=not weighted and any(value.raw for value in given), counted=counted)


def _matrices(node: Node) -> tuple[str, ...]:
    """The inputs of a node of ``WEIGHTED`` that are multiplied with each other: no biases, no scales."""
    if node.op.startswith("QLinear"):
        return (*node.inputs[:1], *node.inputs[3:4])
    if node.op in ("LSTM", "GRU", "RNN"):
        return node.inputs[1:3]
    return node.inputs if node.op == "Einsum" else node.inputs[:2]


def has_trained_weights(flow: ComputationGraph) -> bool:
    """Whether any weights look trained; where none do, as in the smallest of nets, nothing stands out beside them."""
    return any(looks_trained(array) for array in flow.constants.values() if array.ndim > 1)


def looks_trained(weights: np.ndarray) -> bool:
    """Whether ``weights`` look as if they came from training: many, of many different values, no whole numbers.

    Those of quantized layers are integers of eight bits.
    """
    floating = bool(np.issubdtype(weights.dtype, np.floating))
    if weights.size < FEWEST_WEIGHTS or not (floating or weights.dtype.itemsize == 1):
        return False
    if floating and weights.ndim > 1 and _moves_on(weights):
        return False
    some = weights.reshape(-1)[:: max(1, weights.size // LOOKED_AT)]
    if len(np.unique(some[some != 0])) < FEWEST_VALUES:
        some = weights.reshape(-1)
    values = len(np.unique(some[some != 0]))
    if values < FEWEST_VALUES and not (values >= 2 and some.size >= MANY_WEIGHTS and np.mean(some != 0) >= FILLED):
        return False
    return not (floating and np.array_equal(some, np.round(some)))


def _moves_on(weights: np.ndarray) -> bool:
    """Whether each row, or each column, has one weight that counts."""
    sizes = np.abs(weights.reshape(len(weights), -1).astype(np.float64))
    return any(
        table.shape[1] > 1 and bool((table.max(1) * (1 + 1 / ONE_TAP) > table.sum(1)).all())
        for table in (sizes, sizes.T)
    )
