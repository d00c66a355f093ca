"""Table of the cost of an audit by classes, pixels and net."""

from __future__ import annotations

from typing import Any

from lib.table_parts import grid

COLUMNS = ["case", "samples", "CPU seconds", "wall seconds", "peak memory, MiB", "verdict", "longest test, seconds"]


def scaling_table(result: dict[str, Any], title: str) -> list[str]:
    """Return the table, and the ratio of 43 classes to 10."""
    models = result["models"]
    rows = []
    for name, row in models.items():
        test, seconds = max(row["by_test"].items(), key=lambda item: item[1])
        figures = [f"{row[key]:.0f}" for key in ("samples", "cpu_seconds", "wall_seconds", "peak_mib")]
        rows.append([name, *figures, row["verdict"], f"{test}, {seconds:.0f}"])
    few, many = (models.get(f"classes {count}") for count in (10, 43))
    ratio = (
        f" 43 classes cost {many['cpu_seconds'] / few['cpu_seconds']:.2f} times as much as 10." if few and many else ""
    )
    plot = "![CPU seconds by case and phase](audit_scaling.svg)"
    return [f"**{title}** One thread, float32, all variants and tests.{ratio}", "", *grid(COLUMNS, rows), "", plot, ""]
