"""Rules for computation graphs: parts of a graph that bypass the trained weights and change the output.

Published graph edits share two parts. One part reads pixels through operators without trained weights: comparisons,
integer arithmetic, steep steps. At another place its result joins or replaces the output of the model. One pass over
the graph answers each question about its values and nodes; ``find_suspicious_subgraphs`` combines the answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from assay.graphs.dependence import WEIGHTED, Value, analyze_values
from assay.graphs.ir import ComputationGraph, Node

# Operators that compare values; their outputs are truth values or positions.
COMPARISONS = frozenset(
    {
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Xor", "Sign"),
        *("IsNaN", "IsInf", "ArgMax", "ArgMin", "TopK", "NonZero", "Unique"),
    }
)
# Operators on whole numbers or single bits.
INTEGER_OPERATORS = frozenset(
    {"BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "Mod", "Floor", "Ceil", "Round"}
)
# Targets of ``Cast`` that are integers or booleans, in the numbering of ONNX data types.
INTEGER_TYPES = frozenset({2, 3, 4, 5, 6, 7, 9, 12, 13})
# Operators that choose between values.
SELECTIONS = frozenset({"Where", "If", "Loop", "Scan"})
# Nonlinear operators of usual preprocessing. Only several of them on one path are suspicious.
MILD = frozenset({"MaxPool", "ReduceMax", "ReduceMin", "Max", "Min", "Clip", "Relu", "Abs"})
MILD |= frozenset({"Sigmoid", "Tanh", "HardSigmoid", "Softmax"})
# Mild operators on one path; one or two are usual preprocessing.
MIN_MILD_OPERATORS = 3
# Smallest exponent of a steep power.
STEEP_POWER = 4.0
# Smallest product of all factors on a steep path. Usual preprocessing multiplies by 255 to get pixel levels.
STEEP_GAIN = 300.0
# Operators that keep an image an image: layout, resizing, and arithmetic with few constants. Networks pass their input
# to later layers in this way.
PLAIN = frozenset(
    {
        *("Identity", "Cast", "CastLike", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Pad"),
        *("Add", "Sub", "Mul", "Div", "BatchNormalization", "AveragePool", "GlobalAveragePool", "ReduceMean"),
        *("MaxPool", "Resize", "Upsample", "SpaceToDepth", "DepthToSpace"),
    }
)
MAX_PLAIN_CONSTANT = 16  # numbers of a constant by channel; a larger one chooses pixels
# Operators of a long path, and the number of operators that a path remembers.
LONG_PATH = 24
# Constants of nearly every implementation of a cipher or a hash, found nowhere else.
CIPHER_CONSTANTS = frozenset(
    {
        *(0x61707865, 0x3320646E, 0x79622D32, 0x6B206574),  # ChaCha and Salsa
        *(0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0),  # MD5, SHA-1
        *(0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5),  # SHA-256
        *(0x6A09E667F3BCC908, 0x428A2F98D728AE22, 0x7137449123EF65CD),  # SHA-512
        *(0x8082, 0x800000000000808A - 2**64, 0x8000000080008000 - 2**64, 0x808B),  # Keccak
        *(0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573),  # SipHash
    }
)
# Elements of an integer constant that may hold cipher constants; larger ones are tables of data.
MAX_KEY_ELEMENTS = 4096
# Operators between an attention mask and the softmax of attention, and their largest number on a path.
MASK_OPERATORS = frozenset(
    {"Add", "Where", "Reshape", "Transpose", "Cast", "Mul", "Div", "Max", "Min", "Expand", "Identity"}
)
MAX_MASK_OPERATORS = 8
# Operators between a softmax of attention and the product with the values.
AFTER_ATTENTION_SOFTMAX = frozenset({"Cast", "Identity", "Dropout", "Where", "IsNaN", "Reshape", "Transpose"})

# Rules that are signs of a hidden condition. Each rules out the verdict "clean", and proves nothing.
CONDITION_RULES = ("R11", "R12", "R13", "D6")

# Rule number -> description. R: rules of the graph; D: rules of the behaviour on clean samples.
RULES = {
    "R1": "a path from the input to the output without trained weights",
    "R2": "a choice that depends on the values of the input",
    "R3": "whole numbers or single bits of the input",
    "R4": "a step so steep that it is nearly a switch",
    "R5": "constants of a cipher or a hash",
    "R6": "a long chain of operators without weights",
    "R7": "one value is blended with another by a switch and its opposite",
    "R8": "the output can be replaced by numbers that no trained layer computed",
    "R9": "operators that the graph of the reference does not have",
    "R10": "no gradient reaches the input from the output",
    "R11": "the number of samples in a batch is used as a number",
    "R12": "the output for one sample depends on the other samples of its batch",
    "R13": "random numbers",
    "D1": "outputs jump if only the lowest bits of clean images change",
    "D3": "a branch with the same value for all clean samples",
    "D5": "the code and the graph traced from it compute different outputs",
    "D6": "a periodic or bit-like function of the image, finer than an 8-bit step",
}


class NodeTraits(NamedTuple):
    """Contribution of one node to a path without trained weights."""

    rules: frozenset[str] = frozenset()
    mild: int = 0  # 1 for an operator of ``MILD``
    gain: float = 1.0  # factor by which the node enlarges differences, at least 1
    plain: bool = True  # False: more than layout, resizing and scaling


@dataclass(frozen=True)
class Path:
    """The most suspicious path from the input to a value, without trained weights."""

    nodes: tuple[Node, ...] = ()  # the last ``LONG_PATH`` of them
    rules: frozenset[str] = frozenset()
    mild: int = 0  # operators of ``MILD``
    gain: float = 1.0
    is_plain: bool = True  # layout, resizing and scaling only

    @property
    def is_suspicious(self) -> bool:
        """True if the path is more than usual preprocessing."""
        return bool(self.rules) or self.mild >= MIN_MILD_OPERATORS

    def extended(self, node: Node, traits: NodeTraits) -> Path:
        """Return the path with ``node`` at its end."""
        gain = self.gain * traits.gain
        steep = frozenset({"R4"}) if gain >= STEEP_GAIN else frozenset[str]()
        nodes = (*self.nodes[-(LONG_PATH - 1) :], node)
        rules, mild = self.rules | traits.rules | steep, self.mild + traits.mild
        return Path(nodes, rules, mild, gain, self.is_plain and traits.plain)


@dataclass(frozen=True)
class SuspiciousSubgraph:
    """A path without trained weights, and the node at which it joins the model or becomes the output."""

    join: Node
    path: Path  # ends with ``join``
    replaces_output: bool  # no trained weights follow the join
    rules: tuple[str, ...]
    gate: str = ""  # the value on the path that enters the join


def find_suspicious_subgraphs(
    graph: ComputationGraph, *, markers: frozenset[int] | None = None
) -> tuple[SuspiciousSubgraph, ...]:
    """Find the nodes at which a path without trained weights joins the model or becomes the output.

    Args:
        graph: The computation graph.
        markers: Token numbers of begin, end and padding for a model of texts, which masks and pooling compare with.
            None for a model of images.

    Returns:
        The subgraphs in the order of computation.
    """
    values = defaultdict(Value, analyze_values(graph))
    origins = _label_origins(graph, values)
    paths = _label_paths(graph, values, origins.bypass, markers)
    readers = graph.consumers()
    before_weights = _label_before_weights(graph)
    mask_distance = _label_mask_distance(graph, readers)
    found = []
    for number, path in paths.items():
        node = graph.nodes[number]
        joins_model = any(name in origins.model for name in node.inputs)
        is_output = any(name in graph.results for name in node.outputs)
        replaces_output = before_weights.isdisjoint(node.outputs)
        # A text model takes the mean over its tokens after all weights; in an image model such a join is suspicious.
        unusual = replaces_output or not path.is_plain
        suspicious = path.is_suspicious or (markers is None and joins_model and unusual)
        if suspicious and (joins_model or is_output) and mask_distance[number] > MAX_MASK_OPERATORS:
            bypassing = [name for name in node.inputs if name in origins.bypass]
            if node.op in ("Add", "Sub") and all(_adds_zero(name, graph, origins) for name in bypassing):
                continue
            gate = next((name for name in bypassing if origins.path_of(name, paths).is_suspicious), bypassing[0])
            rules = {"R1", *path.rules}
            rules |= {"R6"} if len(path.nodes) >= LONG_PATH else set()
            rules |= {"R7"} if node.op == "Mul" and _has_opposite(gate, path, readers, values) else set()
            rules |= {"R8"} if replaces_output else set()
            found.append(SuspiciousSubgraph(node, path, replaces_output, tuple(sorted(rules)), gate))
    return tuple(found)


def find_cipher_constants(graph: ComputationGraph) -> frozenset[int]:
    """Return the constants of ciphers and hashes among the whole numbers in the graph."""
    found: set[int] = set()
    for array in graph.constants.values():
        if array.dtype.kind in "iu" and 0 < array.size <= MAX_KEY_ELEMENTS:
            found |= CIPHER_CONSTANTS & {int(number) for number in array.reshape(-1)}
        elif array.dtype.kind == "f" and array.size == 1 and float(array.reshape(-1)[0]).is_integer():
            found |= CIPHER_CONSTANTS & {int(array.reshape(-1)[0])}
    return frozenset(found)


def has_no_gradient(graph: ComputationGraph) -> bool:
    """Return whether every path from the input to the output has an operator with zero gradient."""
    reached = set(graph.sources)
    for node in graph.nodes:
        # ``Where`` has no gradient with respect to its condition, but one with respect to both choices.
        inputs = node.inputs[1:] if node.op == "Where" else node.inputs
        if node.op not in COMPARISONS and not _makes_integers(node) and not reached.isdisjoint(inputs):
            reached.update(node.outputs)
    return reached.isdisjoint(graph.results)


@dataclass
class _Origins:
    """Input-dependent values by origin. Behind a join a value counts as the model's own: one report per subgraph."""

    bypass: dict[str, int | None]  # value without trained weights before it -> number of its node; None: graph input
    model: set[str]  # values that trained weights or a join computed

    def path_of(self, name: str, paths: Mapping[int, Path]) -> Path:
        """Return the path to a bypassing value."""
        number = self.bypass[name]
        return Path() if number is None else paths[number]


def _label_origins(graph: ComputationGraph, values: Mapping[str, Value]) -> _Origins:
    """Label each input-dependent value: does it bypass the trained weights, or does the model compute it?"""
    origins = _Origins(dict.fromkeys(graph.sources), set())
    for number, node in enumerate(graph.nodes):
        bypasses = any(name in origins.bypass for name in node.inputs)
        joins = bypasses and any(name in origins.model for name in node.inputs)
        for name in node.outputs:
            if bypasses and not joins and values[name].bypasses_weights:
                origins.bypass[name] = number
            elif joins or values[name].input_dependent:
                origins.model.add(name)
    return origins


def _label_paths(
    graph: ComputationGraph,
    values: Mapping[str, Value],
    bypass: Mapping[str, int | None],
    markers: frozenset[int] | None,
) -> dict[int, Path]:
    """Label each node that reads a bypassing value with the most suspicious path to it, the node included.

    Args:
        graph: The computation graph.
        values: Analysis of its values, for constants.
        bypass: Values without trained weights before them, and the numbers of their nodes.
        markers: As in ``find_suspicious_subgraphs``.

    Returns:
        Paths by node number, in the order of computation.
    """
    paths: dict[int, Path] = {}
    for number, node in enumerate(graph.nodes):
        numbers = [bypass[name] for name in node.inputs if name in bypass]
        if numbers:
            before = [Path() if origin is None else paths[origin] for origin in numbers]
            worst = max(before, key=lambda path: (len(path.rules), not path.is_plain, path.mild, len(path.nodes)))
            paths[number] = worst.extended(node, _traits_of(node, values, markers))
    return paths


def _adds_zero(name: str, graph: ComputationGraph, origins: _Origins) -> bool:
    """Return whether a value is a product with zero: it can make NaN, and chooses between no answers."""
    number = origins.bypass[name]
    node = None if number is None else graph.nodes[number]
    factors = [graph.constants.get(factor) for factor in node.inputs] if node is not None and node.op == "Mul" else []
    return any(array is not None and array.size > 0 and not array.any() for array in factors)


def _label_before_weights(graph: ComputationGraph) -> set[str]:
    """Return the values that an operator with weights reads, directly or through other operators."""
    labelled: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op in WEIGHTED or not labelled.isdisjoint(node.outputs):
            labelled.update(node.inputs)
    return labelled


def _label_mask_distance(graph: ComputationGraph, readers: Mapping[str, list[Node]]) -> list[float]:
    """Label each node with its distance to attention, the only reader of an attention mask.

    Args:
        graph: The computation graph.
        readers: Nodes that read each value.

    Returns:
        For each node, the number of mask operators on its longest path to a softmax of attention. Infinite if any path
        leads elsewhere.
    """
    feeds_product: dict[int, bool] = {}  # id of a node -> every path leads to a matrix product, as after attention
    distance: dict[int, float] = {}  # id of a node -> its label
    for node in reversed(graph.nodes):
        following = [reader for name in node.outputs for reader in readers.get(name, [])]
        feeds_product[id(node)] = bool(following) and all(
            reader.op in ("MatMul", "Einsum")
            or (reader.op in AFTER_ATTENTION_SOFTMAX and feeds_product.get(id(reader), False))
            for reader in following
        )
        distance[id(node)] = max((_mask_step(reader, feeds_product, distance) for reader in following), default=np.inf)
    return [distance[id(node)] for node in graph.nodes]


def _mask_step(reader: Node, feeds_product: Mapping[int, bool], distance: Mapping[int, float]) -> float:
    """Return the distance to attention through one reader of a value."""
    if reader.op == "Softmax" and feeds_product.get(id(reader), False):
        return 0.0
    return 1 + distance.get(id(reader), np.inf) if reader.op in MASK_OPERATORS else np.inf


def _makes_integers(node: Node) -> bool:
    return node.op in INTEGER_OPERATORS or (node.op == "Cast" and node.attributes.get("to") in INTEGER_TYPES)


def _traits_of(node: Node, values: Mapping[str, Value], markers: frozenset[int] | None) -> NodeTraits:
    """Return the contribution of ``node`` to a path without trained weights."""
    constants = [array for name in node.inputs if (array := values[name].constant) is not None and array.size]
    if node.op in COMPARISONS or node.op in SELECTIONS:
        return NodeTraits() if _is_marker_test(node, constants, markers) else NodeTraits(frozenset({"R2"}))
    if _makes_integers(node):
        # Token numbers are integers anyway.
        return NodeTraits() if markers is not None and node.op == "Cast" else NodeTraits(frozenset({"R3"}))
    if node.op == "Exp" or (node.op == "Pow" and any(np.max(array) >= STEEP_POWER for array in constants)):
        return NodeTraits(frozenset({"R4"}))
    plain = node.op in PLAIN and all(array.size <= MAX_PLAIN_CONSTANT for array in constants)
    if node.op in ("Mul", "Div") and all(values[name].input_dependent for name in node.inputs):
        plain = False  # one value of the input switches another
    return NodeTraits(mild=int(node.op in MILD), gain=_gain(node, constants), plain=plain)


def _gain(node: Node, constants: Sequence[np.ndarray]) -> float:
    """Return the factor by which ``node`` enlarges differences, at least 1: later nodes can undo a reduction."""
    if node.op == "HardSigmoid":
        return max(1.0, abs(float(node.attributes.get("alpha", 0.2))))
    sizes = [np.abs(array[np.isfinite(array)]) for array in constants if np.issubdtype(array.dtype, np.floating)]
    sizes = [array for array in sizes if array.size]
    if not sizes or node.op not in WEIGHTED | {"Mul", "Div"}:
        return 1.0
    if node.op == "Div":
        return max(1.0, 1.0 / max(float(sizes[0].max()), 1e-30))
    return max(1.0, float(max(array.max() for array in sizes)))


def _is_marker_test(node: Node, constants: Sequence[np.ndarray], markers: frozenset[int] | None) -> bool:
    """Return whether a comparison in a text model is only about the markers: begin, end, padding.

    A comparison without constants combines the results of such comparisons.
    """
    if markers is None:
        return False
    if not constants:
        return node.op not in SELECTIONS
    numbers = {float(number) for array in constants for number in array.reshape(-1)[:8]}
    return node.op == "Equal" and numbers <= set(map(float, markers))


def _has_opposite(gate: str, path: Path, readers: Mapping[str, list[Node]], values: Mapping[str, Value]) -> bool:
    """Return whether a node computes one minus ``gate``, or ``gate`` is one minus another value."""
    around = [*readers.get(gate, []), *(node for node in path.nodes if gate in node.outputs)]
    for node in around:
        one = values[node.inputs[0]].constant if node.op == "Sub" else None
        if one is not None and one.size and bool((one == 1).all()):
            return True
    return False
