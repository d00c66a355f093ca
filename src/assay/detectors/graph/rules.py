"""What in a computation graph a trained net has no use for: ways around its weights, and what is on them.

The rules are those that graph edits have in common: a detector that reads pixels along operators without trained
weights (comparisons, whole numbers, steep steps), and a place where what it says joins or replaces the answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from assay.graphs.dependence import WEIGHTED, Value, analyze_values
from assay.graphs.ir import ComputationGraph, Node

COMPARES = frozenset(
    {
        *(
            "Equal",
            "Greater",
            "GreaterOrEqual",
            "Less",
            "LessOrEqual",
            "Not",
            "And",
            "Or",
            "Xor",
            "Sign",
            "IsNaN",
            "IsInf",
        ),
        *("ArgMax", "ArgMin", "TopK", "NonZero", "Unique"),
    }
)
WHOLE = frozenset({"BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "Mod", "Floor", "Ceil", "Round"})
INTEGERS = frozenset({2, 3, 4, 5, 6, 7, 9, 12, 13})
"""Of ``Cast``: the types of whole numbers and of truth values, as ONNX numbers them."""
CHOOSES = frozenset({"Where", "If", "Loop", "Scan"})
MILD = frozenset({"MaxPool", "ReduceMax", "ReduceMin", "Max", "Min", "Clip", "Relu", "Abs"})
MILD |= frozenset({"Sigmoid", "Tanh", "HardSigmoid", "Softmax"})
STEEP_POWER = 4.0
STEEP_GAIN = 300.0
"""All factors on a way together; 255 make levels of pixels, as every preprocessing does."""
SEVERAL = 3
"""Mild operators in a row; one or two are somebody's preprocessing."""
LONG = 24
KEYS = frozenset(
    {
        *(0x61707865, 0x3320646E, 0x79622D32, 0x6B206574),  # ChaCha and Salsa
        *(0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0),  # MD5, SHA-1
        *(0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5),  # SHA-256
        *(0x6A09E667F3BCC908, 0x428A2F98D728AE22, 0x7137449123EF65CD),  # SHA-512
        *(0x8082, 0x800000000000808A - 2**64, 0x8000000080008000 - 2**64, 0x808B),  # Keccak
        *(0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573),  # SipHash
    }
)
"""Numbers that stand in nearly every implementation of a cipher or a hash, and nowhere else."""


@dataclass(frozen=True)
class Chain:
    """What stands on the way, without weights, from the input to a value."""

    nodes: tuple[Node, ...] = ()  # the longest way
    rules: frozenset[str] = frozenset()
    mild: int = 0
    gain: float = 1.0

    @property
    def odd(self) -> bool:
        """Whether it is more than somebody's preprocessing."""
        return bool(self.rules) or self.mild >= SEVERAL

    def then(self, node: Node, rules: frozenset[str], mild: int, gain: float) -> Chain:
        total = self.gain * gain
        steep = frozenset({"R4"}) if total >= STEEP_GAIN else frozenset[str]()
        return Chain((*self.nodes[-(LONG - 1) :], node), self.rules | rules | steep, self.mild + mild, total)


@dataclass(frozen=True)
class Gadget:
    """A place where what pixels say by themselves joins what the net says, or is the answer itself."""

    join: Node
    chain: Chain
    replaces: bool  # behind it stand no weights any more: it changes the answer itself
    rules: tuple[str, ...]
    gate: str = ""  # the value that joins


RULES = {
    "R1": "a way from the input to the answer without trained weights",
    "R2": "a choice that depends on the values of the input",
    "R3": "whole numbers or single bits of the input are taken",
    "R4": "a step so steep that it is nearly a switch",
    "R5": "constants of a cipher or a hash",
    "R6": "a long chain of operators without weights",
    "R7": "one value is blended with another by a switch and its opposite",
    "R8": "the answer can be replaced by numbers that no trained layer computed",
    "R9": "operators that the graph of the reference does not have",
    "R10": "no gradient comes from the answer to the input",
    "D1": "answers jump where only lowest bits of clean pictures change",
    "D3": "a branch that does the same for all clean samples",
    "D5": "its code and the graph that is traced from it do not do the same",
}


def gadgets_of(flow: ComputationGraph, *, markers: frozenset[int] | None = None) -> tuple[Gadget, ...]:
    """The gadgets of ``flow``, the ones nearest to the answer last.

    ``markers``: of a model of text, the tokens that every text has, which are looked for to mask and to pool.
    """
    values: dict[str, Value] = defaultdict(Value, analyze_values(flow))
    chains = {name: Chain() for name in flow.sources}
    readers, found = flow.read_by(), []
    for node in flow.nodes:
        raw = [name for name in node.inputs if values[name].raw]
        if not raw:  # nor is what it makes, whatever stood before a join that was found
            values.update({name: Value(derived=True) for name in node.outputs if values[name].raw})
            continue
        worst = max((chains[name] for name in raw), key=lambda chain: (len(chain.rules), chain.mild, len(chain.nodes)))
        rules, mild, gain = _of(node, values, markers)
        chain = worst.then(node, rules, mild, gain)
        made = [values[name] for name in node.outputs]
        trunk = [name for name in node.inputs if values[name].derived and not values[name].raw]
        answers = any(name in flow.results for name in node.outputs)
        # Of texts the means over tokens that are there are taken behind all weights.
        odd = chain.odd or (markers is None and bool(trunk) and not _weighted_behind(node, readers))
        if odd and (trunk or answers) and not _is_mask(node, readers):
            gate = next((name for name in raw if chains[name].odd), raw[0])
            found.append(_gadget(node, chain, values, readers, flow, gate))
        # Behind a join it is the net's own value again: one gadget is reported once.
        if trunk:
            values.update(dict.fromkeys(node.outputs, Value(derived=True)))
        elif made and made[0].raw:
            chains.update(dict.fromkeys(node.outputs, chain))
    return tuple(found)


def keys_of(flow: ComputationGraph) -> frozenset[int]:
    """Constants of ciphers and hashes among the whole numbers in the graph."""
    found: set[int] = set()
    for array in flow.constants.values():
        if array.dtype.kind in "iu" and 0 < array.size <= 4096:
            found |= KEYS & {int(number) for number in array.reshape(-1)}
        elif array.dtype.kind == "f" and array.size == 1 and float(array.reshape(-1)[0]).is_integer():
            found |= KEYS & {int(array.reshape(-1)[0])}
    return frozenset(found)


def without_gradient(flow: ComputationGraph) -> bool:
    """Whether every way from the input to the answer goes through steps that no gradient passes."""
    reached = set(flow.sources)
    for node in flow.nodes:
        flat = node.op in COMPARES | WHOLE or (node.op == "Cast" and node.attributes.get("to") in INTEGERS)
        # Which of two values is chosen has no gradient, what is chosen has.
        given = node.inputs[1:] if node.op == "Where" else node.inputs
        if not flat and any(name in reached for name in given):
            reached.update(node.outputs)
    return not any(name in reached for name in flow.results)


def _of(node: Node, values: Mapping[str, Value], markers: frozenset[int] | None) -> tuple[frozenset[str], int, float]:
    """The rules that ``node`` meets on a way without weights, whether it is mildly odd, and its gain."""
    constants = [array for name in node.inputs if (array := values[name].constant) is not None and array.size]
    if node.op in COMPARES or node.op in CHOOSES:
        return (frozenset() if _of_markers(node, constants, markers) else frozenset({"R2"})), 0, 1.0
    if node.op in WHOLE or (node.op == "Cast" and node.attributes.get("to") in INTEGERS):
        return (frozenset() if markers is not None and node.op == "Cast" else frozenset({"R3"})), 0, 1.0
    if node.op == "Exp" or (node.op == "Pow" and any(np.max(array) >= STEEP_POWER for array in constants)):
        return frozenset({"R4"}), 0, 1.0
    return frozenset(), int(node.op in MILD), _gain(node, constants)


def _gain(node: Node, constants: Sequence[np.ndarray]) -> float:
    """By how much a difference grows, at least 1: what makes smaller is undone by what follows."""
    if node.op == "HardSigmoid":
        return max(1.0, abs(float(node.attributes.get("alpha", 0.2))))
    sizes = [np.abs(array[np.isfinite(array)]) for array in constants if np.issubdtype(array.dtype, np.floating)]
    sizes = [array for array in sizes if array.size]
    if not sizes or node.op not in WEIGHTED | {"Mul", "Div"}:
        return 1.0
    if node.op == "Div":
        return max(1.0, 1.0 / max(float(sizes[0].max()), 1e-30))
    return max(1.0, float(max(array.max() for array in sizes)))


def _of_markers(node: Node, constants: Sequence[np.ndarray], markers: frozenset[int] | None) -> bool:
    """Whether the tokens of a text are compared with its markers only, or what is compared is made of such."""
    if markers is None:
        return False
    if not constants:
        return node.op not in CHOOSES
    numbers = {float(number) for array in constants for number in array.reshape(-1)[:8]}
    return node.op == "Equal" and numbers <= set(map(float, markers))


PASSES = frozenset({"Add", "Where", "Reshape", "Transpose", "Cast", "Mul", "Div", "Max", "Min", "Expand", "Identity"})
STEPS_TO_SOFTMAX = 8


def _attends(node: Node, readers: Mapping[str, list[Node]]) -> bool:
    """Whether a softmax is one of attention: what it says is multiplied with something."""
    following = [reader for name in node.outputs for reader in readers.get(name, [])]
    passing = ("Cast", "Identity", "Dropout", "Where", "IsNaN", "Reshape", "Transpose")
    return bool(following) and all(
        reader.op in ("MatMul", "Einsum") or (reader.op in passing and _attends(reader, readers))
        for reader in following
    )


def _weighted_behind(node: Node, readers: Mapping[str, list[Node]]) -> bool:
    """Whether any weights stand behind ``node``."""
    return any(step.op in WEIGHTED for step in _after(node, readers))


def _is_mask(node: Node, readers: Mapping[str, list[Node]]) -> bool:
    """Whether what ``node`` makes goes into attention and nowhere else: which tokens attend to which."""
    waiting, seen = [(node, 0)], set()
    while waiting:
        place, steps = waiting.pop()
        following = [reader for name in place.outputs for reader in readers.get(name, [])]
        if not following or steps > STEPS_TO_SOFTMAX:
            return False
        for reader in following:
            if id(reader) in seen or (reader.op == "Softmax" and _attends(reader, readers)):
                continue
            if reader.op not in PASSES:
                return False
            seen.add(id(reader))
            waiting.append((reader, steps + 1))
    return True


def _gadget(
    node: Node,
    chain: Chain,
    values: Mapping[str, Value],
    readers: Mapping[str, list[Node]],
    flow: ComputationGraph,
    gate: str,
) -> Gadget:
    replaces = not _weighted_behind(node, readers)
    rules = {"R1", *chain.rules}
    if len(chain.nodes) >= LONG:
        rules.add("R6")
    if node.op == "Mul" and _has_opposite(gate, chain, readers, values):
        rules.add("R7")
    if replaces:
        rules.add("R8")
    return Gadget(node, chain, replaces, tuple(sorted(rules)), gate)


def _after(node: Node, readers: Mapping[str, list[Node]]) -> Iterator[Node]:
    """All that reads what ``node`` makes, and so on."""
    waiting, seen = [node], {id(node)}
    while waiting:
        for name in waiting.pop().outputs:
            for reader in readers.get(name, []):
                if id(reader) not in seen:
                    seen.add(id(reader))
                    waiting.append(reader)
                    yield reader


def _has_opposite(gate: str, chain: Chain, readers: Mapping[str, list[Node]], values: Mapping[str, Value]) -> bool:
    """Whether somebody takes one minus ``gate``, or it is that of another value."""
    around = [*readers.get(gate, []), *(node for node in chain.nodes if gate in node.outputs)]
    for node in around:
        one = values[node.inputs[0]].constant if node.op == "Sub" else None
        if one is not None and one.size and bool((one == 1).all()):
            return True
    return False
