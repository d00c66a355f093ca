"""A part of a computation graph as inline SVG: a box an operator, from the input at the top to the answer below."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from assay.detectors.base import GraphNode

WIDE, HIGH, GAP_X, GAP_Y = 168, 34, 16, 22
LONGEST_NAME = 24


def graph_drawing(nodes: Sequence[GraphNode]) -> Markup:
    """``nodes`` in the order of computation; empty for none."""
    if not nodes:
        return Markup("")
    depths = _depths(nodes)
    columns: dict[int, int] = {}
    places = []
    for depth in depths:
        places.append((GAP_X + columns.get(depth, 0) * (WIDE + GAP_X), GAP_Y + depth * (HIGH + GAP_Y)))
        columns[depth] = columns.get(depth, 0) + 1
    width = GAP_X + max(columns.values()) * (WIDE + GAP_X)
    height = GAP_Y + (max(depths) + 1) * (HIGH + GAP_Y)
    said = " to ".join(dict.fromkeys((nodes[0].op, nodes[-1].op)))
    head = Markup('<svg class="graph" viewBox="0 0 {} {}" style="max-width:{}px" role="img" aria-label="{}">').format(
        width, height, 2 * width, f"{len(nodes)} operators of the computation graph, from {said}"
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


def _edges(nodes: Sequence[GraphNode], places: Sequence[tuple[int, int]]) -> list[Markup]:
    made = {name: place for node, place in zip(nodes, places, strict=True) for name in node.outputs}
    return [
        Markup('<line class="edge" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
            made[name][0] + WIDE // 2, made[name][1] + HIGH, x + WIDE // 2, y
        )
        for node, (x, y) in zip(nodes, places, strict=True)
        for name in dict.fromkeys(node.inputs)
        if name in made
    ]


def _box(node: GraphNode, x: int, y: int) -> Markup:
    name = node.name if len(node.name) <= LONGEST_NAME else f"…{node.name[1 - LONGEST_NAME :]}"
    return Markup(
        '<g class="node"><title>{}</title><rect x="{}" y="{}" width="{}" height="{}" rx="5"/>'
        '<text x="{}" y="{}">{}</text><text class="of" x="{}" y="{}">{}</text></g>'
    ).format(node.name, x, y, WIDE, HIGH, x + 8, y + 14, node.op, x + 8, y + 28, name)
