"""Table of ``benchmarks/run.py kills``."""

from __future__ import annotations

from typing import Any

from lib.table_parts import grid


def kills_table(result: dict[str, Any], title: str) -> list[str]:
    """Return a row for each command and each kind of jobs.

    Args:
        result: The result file.
        title: The title.
    """
    faults = ("lost", "doubled", "different", "left_files", "orphans", "damaged")
    rows, total = [], 0
    for command, kinds in result["commands"].items():
        for kind, row in kinds.items():
            counts = [str(row[name]) for name in ("stores", "records", "redone", "retried", *faults)]
            targets = [str(row["kills"].get(name, 0)) for name in ("group", "supervisor", "main", "worker")]
            rows.append([f"`{command}`, {kind} jobs", *targets, *counts])
            total += sum(row["kills"].values())
    columns = ["command", "killed: all", "supervisor", "main process", "a worker", "finished stores", "records"]
    columns += ["jobs redone", "failed and retried", *(name.replace("_", " ") for name in faults)]
    summary = (
        f"{total:,} kills. Redone: jobs that were killed before their record. Failed and retried: audits whose process "
        "was killed, in the next run. Different: records and files unlike those of an uninterrupted run. Left files: "
        "files that such a run does not leave."
    )
    return [f"**{title}** {summary}", "", *grid(columns, rows), ""]
