"""What a computation graph has that another one, of the model that it should be, has not.

Nodes are named by what they compute and what stands in front of them, some steps back (Shervashidze et al.:
Weisfeiler-Lehman Graph Kernels, JMLR 2011): where an exporter numbers them otherwise, they are still the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from assay.core.errors import Inconclusive
from assay.graphs.ir import ComputationGraph, Node

STEPS = 2
"""So many nodes back belong to a node's name."""

MOST_ADDED = 0.3
"""Of a graph; with more, it is not the same model, or it was exported in another way."""

PASSED = frozenset({"QuantizeLinear", "DequantizeLinear", "Identity", "Cast"})
"""They come and go when a model is rounded, and say nothing else."""


def added(flow: ComputationGraph, reference: ComputationGraph) -> tuple[Node, ...]:
    """The nodes of ``flow`` that ``reference`` has no like of, in the order of computation.

    Raises Inconclusive where the two graphs are not of the same make.
    """
    known, new = Counter(name for _, name in _named(reference)), []
    for node, name in _named(flow):
        if known[name]:
            known[name] -= 1
        else:
            new.append(node)
    if len(new) > MOST_ADDED * max(1, len(flow.nodes)):
        raise Inconclusive(f"{len(new)} of {len(flow.nodes)} nodes are not in the reference's graph: of another make")
    return tuple(new)


def _named(flow: ComputationGraph) -> Iterator[tuple[Node, int]]:
    """The nodes but those that are passed, and their names."""
    names: dict[str, tuple[int, ...]] = {}  # of what makes each value: as seen from there, 0 to STEPS steps back
    for node in flow.nodes:
        given = [names[value] for value in dict.fromkeys(node.inputs) if value in names]
        if node.op in PASSED:
            own = given[0] if given else ()
        else:
            near: tuple[int, ...] = (hash(node.op),)
            for step in range(STEPS):
                near += (hash((node.op, *sorted(name[min(step, len(name) - 1)] for name in given if name))),)
            own = near
            yield node, own[-1]
        names.update(dict.fromkeys(node.outputs, own))
