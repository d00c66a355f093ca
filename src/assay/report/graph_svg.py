"""Part of a computation graph as inline SVG, with the input at the top and the output at the bottom."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from assay.core.finding import GraphNode

BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y = 168, 34, 16, 22  # SVG units
MAX_NAME_LENGTH = 24  # characters of an operator's name
ROWS = 8  # boxes below each other before the next column begins


def graph_drawing(nodes: Sequence[GraphNode]) -> Markup:
    """Return the drawing of ``nodes``, given in the order of computation; empty for no nodes."""
    if not nodes:
        return Markup("")
    corners = _corners(_depths(nodes))
    width = max(x for x, _ in corners) + BOX_WIDTH + GAP_X
    height = max(y for _, y in corners) + BOX_HEIGHT + GAP_Y
    ends = " to ".join(dict.fromkeys((nodes[0].op, nodes[-1].op)))
    head = Markup('<svg class="graph" viewBox="0 0 {} {}" style="max-width:{}px" role="img" aria-label="{}">').format(
        width, height, width, f"{len(nodes)} operators of the computation graph, from {ends}"
    )
    boxes = [_box(node, *corner) for node, corner in zip(nodes, corners, strict=True)]
    return head + Markup("").join(_edges(nodes, corners)) + Markup("").join(boxes) + Markup("</svg>")


def _depths(nodes: Sequence[GraphNode]) -> list[int]:
    """Return the length of the longest path to each node."""
    depth_of: dict[str, int] = {}  # by name of a value
    depths = []
    for node in nodes:
        depth = max((depth_of[name] + 1 for name in node.inputs if name in depth_of), default=0)
        depths.append(depth)
        depth_of.update(dict.fromkeys(node.outputs, depth))
    return depths


def _corners(depths: Sequence[int]) -> list[tuple[int, int]]:
    """Return the left and top edge of each box. After ``ROWS`` rows the drawing continues in a new column."""
    count_at: dict[int, int] = {}  # boxes of the same depth
    order = []
    for depth in depths:
        order.append(count_at.get(depth, 0))
        count_at[depth] = order[-1] + 1
    widths = [
        max((count for depth, count in count_at.items() if depth // ROWS == column), default=1)
        for column in range(max(depths) // ROWS + 1)
    ]
    starts = [sum(widths[:column]) for column in range(len(widths))]
    return [
        (GAP_X + (starts[depth // ROWS] + place) * (BOX_WIDTH + GAP_X), GAP_Y + depth % ROWS * (BOX_HEIGHT + GAP_Y))
        for depth, place in zip(depths, order, strict=True)
    ]


def _edges(nodes: Sequence[GraphNode], corners: Sequence[tuple[int, int]]) -> list[Markup]:
    producer = {name: corner for node, corner in zip(nodes, corners, strict=True) for name in node.outputs}
    return [
        Markup('<line class="edge" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(*_line_ends(producer[name], corner))
        for node, corner in zip(nodes, corners, strict=True)
        for name in dict.fromkeys(node.inputs)
        if name in producer
    ]


def _line_ends(above: tuple[int, int], below: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a line from a box to the box below it, or from its right side to the next column."""
    if below[1] > above[1]:
        return above[0] + BOX_WIDTH // 2, above[1] + BOX_HEIGHT, below[0] + BOX_WIDTH // 2, below[1]
    return above[0] + BOX_WIDTH, above[1] + BOX_HEIGHT // 2, below[0], below[1] + BOX_HEIGHT // 2


def _box(node: GraphNode, x: int, y: int) -> Markup:
    name = node.name if len(node.name) <= MAX_NAME_LENGTH else f"…{node.name[1 - MAX_NAME_LENGTH :]}"
    return Markup(
        '<g class="node"><title>{}</title><rect x="{}" y="{}" width="{}" height="{}" rx="5"/>'
        '<text x="{}" y="{}">{}</text><text class="of" x="{}" y="{}">{}</text></g>'
    ).format(node.name, x, y, BOX_WIDTH, BOX_HEIGHT, x + 8, y + 14, node.op, x + 8, y + 28, name)
