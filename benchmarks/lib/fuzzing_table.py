"""Table of ``benchmarks/run.py fuzzing``."""

from __future__ import annotations

from typing import Any

from lib.table_parts import grid


def fuzzing_table(result: dict[str, Any], title: str) -> list[str]:
    """Return the lines of the table.

    Args:
        result: Content of the result file.
        title: Sentence above the table.
    """
    rows = []
    for name, row in result["readers"].items():
        faults = ", ".join(f"{len(numbers)} x {kind}" for kind, numbers in row["faults"].items()) or "0"
        counts = [f"{row[key]:,}" for key in ("cases", "read", "refused")]
        rows.append([name, *counts, faults, f"{row['slowest']:.1f} s", f"{row['largest'] / 2**20:,.0f} MiB"])
    head = ["reader", "cases", "read", "refused in one line", "faults", "slowest", "memory"]
    return [f"**{title}** {result['cases']:,} cases, {result['faults']} faults.", "", *grid(head, rows), ""]
