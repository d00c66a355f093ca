"""Table of ``benchmarks/run.py kills``."""

from __future__ import annotations

from collections import Counter
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
    moments = Counter[str]()
    for row in (row for kinds in result["commands"].values() for row in kinds.values()):
        moments.update(row["moments"])
    summary = (
        f"{total:,} kills, {', '.join(f'{count} {moment}' for moment, count in moments.items())} of a store. Real jobs "
        "train a ResNet-8 on 24 images, or audit a small ONNX file with one test. Quick jobs wait 10 to 100 ms and "
        "write the same files, or files of the same size. New processes are forks with all imports done. Redone: jobs "
        "killed before their record, and run again. Failed and retried: audits that failed because their process was "
        "killed; the next run repeated them. Different: records and files unlike those of an uninterrupted run. Left "
        "files: files that such a run does not leave in the store."
    )
    return [f"**{title}** {summary}", "", *grid(columns, rows), ""]
