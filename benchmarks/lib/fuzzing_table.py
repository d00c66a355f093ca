"""Table of ``benchmarks/run.py fuzzing``."""

from __future__ import annotations

from typing import Any


def fuzzing_table(result: dict[str, Any], title: str) -> list[str]:
    """Return the lines of the table.

    Args:
        result: Content of the result file.
        title: Sentence above the table.
    """
    lines = [f"{title} {result['cases']:,} cases, {result['faults']} faults.", ""]
    lines += [
        "| reader | cases | read | refused in one line | faults | slowest | memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in result["readers"].items():
        faults = ", ".join(f"{len(numbers)} x {kind}" for kind, numbers in row["faults"].items()) or "0"
        memory = f"{row['largest'] / 2**20:,.0f} MiB"
        counts = f"{row['cases']:,} | {row['read']:,} | {row['refused']:,}"
        lines.append(f"| {name} | {counts} | {faults} | {row['slowest']:.1f} s | {memory} |")
    return lines
