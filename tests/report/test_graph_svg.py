"""Parts of computation graphs as SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from assay.core.finding import GraphNode
from assay.report.graph_svg import graph_drawing

NODES = (
    GraphNode("Round", "round", ("x",), ("a",)),
    GraphNode("Mod", "mod", ("a", "two"), ("b",)),
    GraphNode("Equal", "a" * 60, ("a", "b"), ("c",)),
    GraphNode("Where", "<script>&", ("c", "logits"), ("out",)),
)


def test_boxes_are_below_their_inputs_and_joined_by_lines() -> None:
    svg = ET.fromstring(graph_drawing(NODES))
    rows = [float(rect.get("y", "nan")) for rect in svg.iter("rect")]
    assert rows == sorted(rows)
    assert len(rows) == 4
    assert len(list(svg.iter("line"))) == 4
    assert "4 operators of the computation graph, from Round to Where" in (svg.get("aria-label") or "")


def test_long_names_are_shortened_and_escaped() -> None:
    drawn = str(graph_drawing(NODES))
    assert "<script>" not in drawn
    assert "&lt;script&gt;&amp;" in drawn
    assert f"…{'a' * 23}" in drawn
    assert graph_drawing(()) == ""
