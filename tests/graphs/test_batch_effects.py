"""Tests of the batch analysis on graphs of a few nodes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from assay.graphs.batch import BatchEffects, find_batch_effects

CONSTANTS = """int64[1] zero = {0}, int64[1] one = {1}, int64[1] axis = {1}, float two = {2.0},
int64[2] both = {0, -1}, int64[2] flat = {-1, 12}, int64[1] two_axes = {2}, float[2] table = {9.0, 0.0}"""

SMALL = "float[4, 2] v = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}"

# Nodes between the images x (N, 3, 4) and the logits y (N, 2). The weights are ``w`` (12, 2).
HONEST = {
    "reshape by the batch size": """
        size = Shape <start = 0, end = 1> (x)
        last = Constant <value_ints = [12]> ()
        shape = Concat <axis = 0> (size, last)
        rows = Reshape(x, shape)
        y = MatMul(rows, w)""",
    "token repeated for each sample": """
        size = Shape <start = 0, end = 1> (x)
        rest = Constant <value_ints = [12]> ()
        shape = Concat <axis = 0> (size, rest)
        token = Constant <value_floats = [0.5]> ()
        tokens = Expand(token, shape)
        rows = Reshape(x, flat)
        sums = Add(rows, tokens)
        y = MatMul(sums, w)""",
    "scale by the number of channels": """
        size = Shape <start = 1, end = 2> (x)
        channels = Cast <to = 1> (size)
        rows = Reshape(x, flat)
        scaled = Div(rows, channels)
        y = MatMul(scaled, w)""",
    "channels chosen from the whole shape": """
        size = Shape (x)
        count = Gather(size, one)
        channels = Cast <to = 1> (count)
        rows = Reshape(x, flat)
        scaled = Div(rows, channels)
        y = MatMul(scaled, w)""",
    "positions of tokens, repeated for each sample": """
        size = Shape <start = 0, end = 1> (x)
        places = Constant <value_floats = [0.0, 1.0, 2.0]> ()
        repeated = Tile(places, size)
        shape = Constant <value_ints = [-1, 3, 1]> ()
        tokens = Reshape(repeated, shape)
        moved = Add(x, tokens)
        rows = Reshape(moved, flat)
        y = MatMul(rows, w)""",
    "row and column of a token": """
        size = Shape <start = 0, end = 1> (x)
        limit = Squeeze(size)
        first = Constant <value_int = 0> ()
        step = Constant <value_int = 1> ()
        places = Range(first, limit, step)
        row = Unsqueeze(places, axis)
        sums = ReduceSum <keepdims = 0> (x, two_axes)
        last = ArgMax <axis = 1> (sums)
        pairs = Concat <axis = 1> (row, last)
        token = GatherND(x, pairs)
        y = MatMul(token, v)""",
    "softmax over the classes": """
        rows = Reshape(x, flat)
        logits = MatMul(rows, w)
        y = Softmax <axis = 1> (logits)""",
    "dynamic quantization": """
        rows = Reshape(x, flat)
        q, scale, start = DynamicQuantizeLinear(rows)
        back = DequantizeLinear(q, scale, start)
        y = MatMul(back, w)""",
}
NUMBERS = {
    "large batch": """
        rows = Reshape(x, flat)
        logits = MatMul(rows, w)
        size = Shape <start = 0, end = 1> (x)
        most = Constant <value_ints = [100]> ()
        large = Greater(size, most)
        gate = Cast <to = 1> (large)
        y = Add(logits, gate)""",
    "position in the batch": """
        rows = Reshape(x, flat)
        logits = MatMul(rows, w)
        size = Shape <start = 0, end = 1> (x)
        limit = Squeeze(size)
        first = Constant <value_int = 0> ()
        step = Constant <value_int = 1> ()
        places = Range(first, limit, step)
        most = Constant <value_int = 100> ()
        late = Greater(places, most)
        gate = Cast <to = 1> (late)
        column = Unsqueeze(gate, axis)
        y = Add(logits, column)""",
    "shape": """
        rows = Reshape(x, flat)
        logits = MatMul(rows, w)
        size = Shape <start = 0, end = 1> (x)
        count = Cast <to = 1> (size)
        left = Sub(two, count)
        gate = Relu(left)
        y = Add(logits, gate)""",
    "ones summed over the batch": """
        rows = Reshape(x, flat)
        logits = MatMul(rows, w)
        size = Shape <start = 0, end = 1> (x)
        ones = ConstantOfShape <value = float[1] {1.0}> (size)
        count = ReduceSum(ones, zero)
        y = Mul(logits, count)""",
    "position in a table": """
        rows = Reshape(x, flat)
        logits = MatMul(rows, w)
        size = Shape <start = 0, end = 1> (x)
        place = Min(size, one)
        gate = Gather(table, place)
        y = Add(logits, gate)""",
}
MIXING = {
    "mean over the batch": """
        rows = Reshape(x, flat)
        logits = MatMul(rows, w)
        mean = ReduceMean <keepdims = 1> (logits, zero)
        y = Sub(logits, mean)""",
    "probabilities summed over all": """
        rows = Reshape(x, flat)
        logits = MatMul(rows, w)
        parts = Softmax <axis = 1> (logits)
        count = ReduceSum <keepdims = 0> (parts)
        y = Mul(logits, count)""",
    "softmax over the batch": """
        rows = Reshape(x, flat)
        logits = MatMul(rows, w)
        y = Softmax <axis = 0> (logits)""",
    "first sample": """
        rows = Reshape(x, flat)
        logits = MatMul(rows, w)
        first = Slice(logits, zero, one, zero)
        y = Sub(logits, first)""",
    "product of samples": """
        rows = Reshape(x, flat)
        logits = MatMul(rows, w)
        turned = Transpose <perm = [1, 0]> (logits)
        squares = MatMul(turned, logits)
        y = MatMul(logits, squares)""",
}


def effects(nodes: str) -> BatchEffects:
    weights = ", ".join(f"{value:.3f}" for value in np.random.default_rng(0).normal(size=24))
    graph = parser.parse_graph(
        f"g (float[n, 3, 4] x) => (float[n, 2] y) <{CONSTANTS}, float[12, 2] w = {{{weights}}}, {SMALL}> {{ {nodes} }}"
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    used = (name for node in graph.node for name in node.output if node.op_type != "Constant")
    return find_batch_effects(model, frozenset(used))


@pytest.mark.parametrize("name", HONEST)
def test_shape_arguments_and_sums_within_a_sample_are_no_effect(name: str) -> None:
    assert effects(HONEST[name]) == BatchEffects()


@pytest.mark.parametrize("name", NUMBERS)
def test_batch_size_that_joins_the_answer_is_found(name: str) -> None:
    assert effects(NUMBERS[name]).size_as_number


@pytest.mark.parametrize("name", MIXING)
def test_samples_that_mix_are_found(name: str) -> None:
    assert effects(MIXING[name]).mixing


def test_nodes_that_no_answer_needs_are_ignored() -> None:
    graph = parser.parse_graph("g (float[n, 2] x) => (float[n, 2] y) { y = Relu(x) m = ReduceMean(x) z = Sub(x, m) }")
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    assert find_batch_effects(model, frozenset({"y"})) == BatchEffects()
    assert find_batch_effects(model, frozenset({"m", "z"})).mixing


def test_huge_sizes_and_loops_are_not_computed() -> None:
    nodes = """
        rows = Reshape(x, flat)
        logits = MatMul(rows, w)
        size = Shape <start = 0, end = 1> (x)
        huge = Constant <value_ints = [4000000000000]> ()
        many = Mul(size, huge)
        ones = ConstantOfShape <value = float[1] {1.0}> (many)
        count = ReduceSum(ones, zero)
        y = Mul(logits, count)"""
    assert effects(nodes).mixing is None
