"""Signs of a hidden condition in a computation graph: an answer that depends on more than its own input.

A sign proves no backdoor. A sign rules out the verdict "clean": tests in one way of asking show little about others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from assay.detectors.graph.activations import iterate_values
from assay.detectors.graph.read import ReadableGraph
from assay.graphs.batch import find_batch_effects
from assay.graphs.dependence import analyze_values
from assay.graphs.ir import RANDOM_OPERATORS, ComputationGraph, Node

# Operators with a period, or the rest of a division: their output repeats while the input grows.
PERIODIC = frozenset({"Sin", "Cos", "Tan", "Mod"})
ROUNDINGS = frozenset({"Floor", "Ceil", "Round"})
# Operators that keep a rounded value a rounded value, up to a factor.
SCALINGS = frozenset({"Mul", "Div", "Add", "Sub", "Cast", "Identity", "Neg", "Reshape", "Unsqueeze", "Squeeze", "Clip"})
STEP = 1 / 255  # of an 8-bit image
# Smallest mean change of the argument, in periods, for a change of the image by a step or a quarter of it.
MIN_PERIODS = 0.1
MAX_IMAGES = 4


def find_signs(read: ReadableGraph, *, is_image: bool, seed: int) -> dict[str, str]:
    """Return the broken rules R11 to R13 and D6, each with the name of a node.

    Args:
        read: The graph, and samples in its layout.
        is_image: True for a model of images; only images have 8-bit steps.
        seed: Seed of the changes within a step.

    Raises:
        Exception: The graph cannot be analyzed or run in parts.
    """
    graph = read.graph
    random = next((node for node in graph.nodes if draws_random_numbers(node, graph)), None)
    signs = {} if random is None else {"R13": f"{random.op} {random.name}"}
    if read.chosen_by_batch:
        signs["R11"] = "a choice of its code"
    if read.batch is None:
        effects = find_batch_effects(read.model, frozenset(name for node in graph.nodes for name in node.outputs))
        found = {"R11": effects.size_as_number, "R12": effects.mixing}
        signs |= {rule: place for rule, place in found.items() if place is not None}
    if is_image and (node := find_fine_pattern(read, seed=seed)) is not None:
        signs["D6"] = f"{node.op} {node.name}"
    return signs


def draws_random_numbers(node: Node, graph: ComputationGraph) -> bool:
    """Return whether a node draws random numbers: a generator, or dropout in training mode.

    Args:
        node: The node.
        graph: Its graph, for constants.
    """
    if node.op == "Dropout" and len(node.inputs) > 1:
        mode = graph.constants.get(node.inputs[-1])
        return mode is not None and mode.dtype == np.bool_ and bool(mode.all())
    return node.op in RANDOM_OPERATORS


def find_fine_pattern(read: ReadableGraph, *, seed: int) -> Node | None:
    """Return the first node with a periodic or bit-like function of the image, finer than about ten 8-bit steps.

    Args:
        read: The graph, and images in its layout.
        seed: Seed of the changes within a step.
    """
    candidates = list(_candidates(read.graph))
    names = list(dict.fromkeys(node.inputs[0] for node in candidates))
    if not names:
        return None
    count = read.batch or min(MAX_IMAGES, len(read.x))
    x = read.x[:count].float()
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))
    changes = [noise.round() * 2 - 1, (noise - 0.5) / 2]
    base = _values(read, names, x)
    moved = [_values(read, names, x + STEP * change) for change in changes]
    for node in candidates:
        number = names.index(node.inputs[0])
        size = max(float(np.abs(values[number] - base[number]).mean()) for values in moved)
        if size > MIN_PERIODS * _period(node, read.graph):
            return node
    return None


def _candidates(graph: ComputationGraph) -> Iterator[Node]:
    """Yield the periodic nodes that read the input, and roundings whose remainder is used."""
    values = analyze_values(graph)
    for node in graph.nodes:
        value = values.get(node.inputs[0]) if node.inputs else None
        is_rest = node.op in PERIODIC or (node.op in ROUNDINGS and _uses_remainder(node, graph))
        if is_rest and value is not None and value.input_dependent:
            yield node


def _uses_remainder(rounding: Node, graph: ComputationGraph) -> bool:
    """Return whether a node subtracts or compares a rounded value with the value before rounding."""
    exact, rounded = {rounding.inputs[0]}, set(rounding.outputs)
    producers = graph.producers()
    source = producers.get(rounding.inputs[0])
    while source is not None and source.op in SCALINGS:
        inputs = [name for name in source.inputs if name not in graph.constants]
        if len(inputs) != 1:
            break
        exact.add(inputs[0])
        source = producers.get(inputs[0])
    for node in graph.nodes:
        if node is rounding or node.op not in SCALINGS | {"Equal", "Greater", "Less"}:
            continue
        has_exact, has_rounded = (not group.isdisjoint(node.inputs) for group in (exact, rounded))
        if has_exact and has_rounded:
            return True
        exact.update(node.outputs if has_exact else ())
        rounded.update(node.outputs if has_rounded else ())
    return False


def _period(node: Node, graph: ComputationGraph) -> float:
    if node.op in ROUNDINGS:
        return 1.0
    if node.op == "Mod":
        divisor = graph.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
        return float(np.abs(divisor.astype(np.float64)).mean()) if divisor is not None and divisor.size else 1.0
    return float(np.pi if node.op == "Tan" else 2 * np.pi)


def _values(read: ReadableGraph, names: Sequence[str], x: Tensor) -> list[np.ndarray]:
    inner = [name for name in names if name not in read.graph.sources]
    found = dict.fromkeys(read.graph.sources, x.numpy())
    if inner:
        _, values = next(iterate_values(read.model, inner, x, batch=read.batch))
        found |= dict(zip(inner, values, strict=True))
    return [found[name].astype(np.float64) for name in names]
