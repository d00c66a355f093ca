"""Graph diff: nodes of a computation graph that the graph of a reference model does not have.

A node is identified by its operator and the operators some steps before it (Shervashidze et al.: Weisfeiler-Lehman
Graph Kernels, JMLR 2011). Names and numbers from an exporter play no role.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from assay.core.errors import Inconclusive
from assay.graphs.ir import ComputationGraph, Node

STEPS = 2  # steps back from a node that belong to its identity
MAX_ADDED_FRACTION = 0.3  # of a graph's nodes; with more, it is another model or comes from another exporter
IGNORED = frozenset({"QuantizeLinear", "DequantizeLinear", "Identity", "Cast"})  # quantization adds and removes these


def added_nodes(graph: ComputationGraph, reference: ComputationGraph) -> tuple[Node, ...]:
    """Return the nodes that a graph has and its reference does not, in the order of computation.

    Args:
        graph: The graph under audit.
        reference: The graph of the reference model.

    Raises:
        Inconclusive: More than ``MAX_ADDED_FRACTION`` of the nodes differ.
    """
    known, new = Counter(label for _, label in _labelled_nodes(reference)), []
    for node, label in _labelled_nodes(graph):
        if known[label]:
            known[label] -= 1
        else:
            new.append(node)
    if len(new) > MAX_ADDED_FRACTION * max(1, len(graph.nodes)):
        raise Inconclusive(
            f"{len(new)} of {len(graph.nodes)} nodes are not in the graph of the reference: it is another model"
        )
    return tuple(new)


def _labelled_nodes(graph: ComputationGraph) -> Iterator[tuple[Node, int]]:
    """Yield each node that is not ignored, and its Weisfeiler-Lehman label."""
    labels: dict[str, tuple[int, ...]] = {}  # of each value: labels of its node at depth 0 to STEPS
    for node in graph.nodes:
        inputs = [labels[value] for value in dict.fromkeys(node.inputs) if value in labels]
        if node.op in IGNORED:
            label = inputs[0] if inputs else ()
        else:
            label = (hash(node.op),)
            for step in range(STEPS):
                label += (hash((node.op, *sorted(given[min(step, len(given) - 1)] for given in inputs if given))),)
            yield node, label[-1]
        labels.update(dict.fromkeys(node.outputs, label))
