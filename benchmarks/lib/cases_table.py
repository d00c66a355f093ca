"""Table of ``benchmarks/run.py cases``."""

from __future__ import annotations

from typing import Any

from lib.table_parts import grid, percent

SHOWN = 160  # characters of a message


def cases_table(result: dict[str, Any], title: str) -> list[str]:
    """Return one row for each case.

    Args:
        result: The result file.
        title: The title.
    """
    rows = [
        [
            row["name"],
            "" if row["exit_code"] is None else str(row["exit_code"]),
            row["verdict"] or "",
            percent(row["accuracy"]),
            f"{row['seconds']:.0f} s",
            "; ".join(row["problems"]) or "yes",
            _short(row["message"]),
        ]
        for row in result["models"].values()
    ]
    expected = sum(not row["problems"] for row in result["models"].values())
    summary = (
        f"{expected} of {len(rows)} end as expected: exit code, accuracy, words of the message, time. 2: refused, "
        "3: inconclusive. One cheap test decides nothing, so 3 is right for most inputs that load. The times are from "
        "a busy machine. The processors of images have a table of their own."
    )
    head = ["case", "exit code", "verdict", "accuracy", "time", "as expected", "message or reason"]
    return [f"**{title}** {summary}", "", *grid(head, rows), ""]


def _short(message: str) -> str:
    """Return the beginning of a message, for a cell."""
    text = " ".join(message.removeprefix("assay: ").split()).replace("|", "\\|").replace("../shared/cases/", "")
    return text if len(text) <= SHOWN else f"{text[:SHOWN].rsplit(' ', 1)[0]} ..."
