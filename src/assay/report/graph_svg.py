"""A part of a computation graph as inline SVG: a box an operator, from the input at the top to the answer below."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from assay.core.finding import GraphNode

WIDE, HIGH, GAP_X, GAP_Y = 168, 34, 16, 22
LONGEST_NAME = 24
ROWS = 8


def graph_drawing(nodes: Sequence[GraphNode]) -> Markup:
    """``nodes`` in the order of computation; empty for none."""
    if not nodes:
        return Markup("")
    places = _places(_depths(nodes))
    width = max(x for x, _ in places) + WIDE + GAP_X
    height = max(y for _, y in places) + HIGH + GAP_Y
    said = " to ".join(dict.fromkeys((nodes[0].op, nodes[-1].op)))
    head = Markup('<svg class="graph" viewBox="0 0 {} {}" style="max-width:{}px" role="img" aria-label="{}">').format(
        width, height, width, f"{len(nodes)} operators of the computation graph, from {said}"
    )
    boxes = [_box(node, *place) for node, place in zip(nodes, places, strict=True)]
    return head + Markup("").join(_edges(nodes, places)) + Markup("").join(boxes) + Markup("</svg>")


def _depths(nodes: Sequence[GraphNode]) -> list[int]:
    made: dict[str, int] = {}
    depths = []
    for node in nodes:
        depth = max((made[name] + 1 for name in node.inputs if name in made), default=0)
        depths.append(depth)
        made.update(dict.fromkeys(node.outputs, depth))
    return depths


def _places(depths: Sequence[int]) -> list[tuple[int, int]]:
    """Where the boxes stand, left and top: ``ROWS`` rows, then a column further to the right goes on."""
    beside: dict[int, int] = {}
    order = []
    for depth in depths:
        order.append(beside.get(depth, 0))
        beside[depth] = order[-1] + 1
    widths = [
        max((count for depth, count in beside.items() if depth // ROWS == column), default=1)
        for column in range(max(depths) // ROWS + 1)
    ]
    starts = [sum(widths[:column]) for column in range(len(widths))]
    return [
        (GAP_X + (starts[depth // ROWS] + place) * (WIDE + GAP_X), GAP_Y + depth % ROWS * (HIGH + GAP_Y))
        for depth, place in zip(depths, order, strict=True)
    ]


def _edges(nodes: Sequence[GraphNode], places: Sequence[tuple[int, int]]) -> list[Markup]:
    made = {name: place for node, place in zip(nodes, places, strict=True) for name in node.outputs}
    return [
        Markup('<line class="edge" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(*_ends(made[name], place))
        for node, place in zip(nodes, places, strict=True)
        for name in dict.fromkeys(node.inputs)
        if name in made
    ]


def _ends(above: tuple[int, int], below: tuple[int, int]) -> tuple[int, int, int, int]:
    """From under a box to the top of the next, or from its right side to the next column."""
    if below[1] > above[1]:
        return above[0] + WIDE // 2, above[1] + HIGH, below[0] + WIDE // 2, below[1]
    return above[0] + WIDE, above[1] + HIGH // 2, below[0], below[1] + HIGH // 2


def _box(node: GraphNode, x: int, y: int) -> Markup:
    name = node.name if len(node.name) <= LONGEST_NAME else f"…{node.name[1 - LONGEST_NAME :]}"
    return Markup(
        '<g class="node"><title>{}</title><rect x="{}" y="{}" width="{}" height="{}" rx="5"/>'
        '<text x="{}" y="{}">{}</text><text class="of" x="{}" y="{}">{}</text></g>'
    ).format(node.name, x, y, WIDE, HIGH, x + 8, y + 14, node.op, x + 8, y + 28, name)
