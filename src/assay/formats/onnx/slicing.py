"""Selection of the nodes behind one value of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

MAX_NODES = 100_000  # of a graph; a hostile file could hold any number


class GraphNode(Protocol):
    """An operator with the names of its input and output values."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the input values."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output values."""
        ...


N = TypeVar("N", bound=GraphNode)


def nodes_for(nodes: Sequence[N], result: str) -> tuple[list[N], set[str]]:
    """Return the nodes behind a value, and the names of all their values.

    Args:
        nodes: The nodes of a graph in the order of computation.
        result: Name of the value.
    """
    wanted, kept = {result}, []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.outputs):
            kept.append(node)
            wanted.update(node.inputs)
    return kept[::-1], wanted
