"""What a computation graph has that another one, of the model that it should be, has not.

Nodes are named by what they compute and what stands in front of them, some steps back (Shervashidze et al.:
Weisfeiler-Lehman Graph Kernels, JMLR 2011): where an exporter numbers them otherwise, they are still the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from assay.errors import Inconclusive
from assay.models.flow import Flow, Node

STEPS = 2
"""So many nodes back belong to a node's name."""

MOST_ADDED = 0.3
"""Of a graph; with more, it is not the same model, or it was exported in another way."""

PASSED = frozenset({"QuantizeLinear", "DequantizeLinear", "Identity", "Cast"})
"""They come and go when a model is rounded, and say nothing else."""


def added(flow: Flow, reference: Flow) -> tuple[Node, ...]:
    """The nodes of ``flow`` that ``reference`` has no like of, in the order of computation.

    Raises Inconclusive where the two graphs are not of the same make.
    """
    known, new = Counter(_names(reference).values()), []
    names = _names(flow)
    for node in flow.nodes:
        if node.op in PASSED:
            continue
        name = names[node.outputs[0]]
        if known[name]:
            known[name] -= 1
        else:
            new.append(node)
    if len(new) > MOST_ADDED * max(1, len(flow.nodes)):
        raise Inconclusive(f"{len(new)} of {len(flow.nodes)} nodes are not in the reference's graph: of another make")
    return tuple(new)


def _names(flow: Flow) -> Mapping[str, int]:
    """By the first value that a node makes, the name of the node."""
    made, names = flow.made_by(), {}
    for node in flow.nodes:
        if node.outputs:
            names[node.outputs[0]] = _name(node, made, STEPS)
    return names


def _name(node: Node, made: Mapping[str, Node], steps: int) -> int:
    before = [made[name] for name in node.inputs if name in made]
    while any(place.op in PASSED for place in before):
        before = [
            further
            for place in before
            for further in ([made[n] for n in place.inputs if n in made] if place.op in PASSED else [place])
        ]
    return hash((node.op, *sorted(_name(place, made, steps - 1) for place in before))) if steps else hash(node.op)
