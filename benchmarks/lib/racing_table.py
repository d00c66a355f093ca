"""Table of ``benchmarks/run.py racing``."""

from __future__ import annotations

import statistics
from typing import Any

from lib.table_parts import grid

TESTS = ("patch-scan", "wave-scan", "max-margin")


def racing_table(result: dict[str, Any], title: str) -> list[str]:
    """Return one row for each model: both scores and targets of each test, and the median ratio of passes.

    Args:
        result: The result file.
        title: The title.
    """
    models = result["models"]
    summary = []
    for test in TESTS:
        rows = [row[test] for row in models.values()]
        ratio = statistics.median(row["full"]["passes"] / row["raced"]["passes"] for row in rows)
        same = sum(row["full"]["target"] == row["raced"]["target"] for row in rows)
        rise = statistics.mean(row["raced"]["score"] - row["full"]["score"] for row in rows)
        summary.append(
            f"{test}: {ratio:.1f} times fewer passes (median), {same} of {len(rows)} targets equal, "
            f"mean change of the score {rise:+.2f}."
        )
    columns = [
        "model",
        "classes",
        *(f"{test}: score (class)" for test in TESTS),
        *(f"{test}: passes" for test in TESTS),
    ]
    table = [
        [name, str(row["classes"]), *(_scores(row[test]) for test in TESTS), *(_passes(row[test]) for test in TESTS)]
        for name, row in models.items()
    ]
    return [f"**{title}** {' '.join(summary)} Each cell: full, then raced.", "", *grid(columns, table), ""]


def _scores(row: dict[str, Any]) -> str:
    return ", ".join(f"{row[kind]['score']:.2f} ({row[kind]['target']})" for kind in ("full", "raced"))


def _passes(row: dict[str, Any]) -> str:
    return ", ".join(f"{row[kind]['passes']:,}" for kind in ("full", "raced"))
