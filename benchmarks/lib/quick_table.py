"""Table of the quick audit: backdoors found and false alarms by extent, and the cost of one quick audit."""

from __future__ import annotations

from lib.table_parts import grid


def quick_table(result: dict, title: str) -> list[str]:
    """Return the counts by extent and set of models, and the figures of one quick audit."""
    rows = []
    for models, extents in result["models"].items():
        full = list(extents.values())[-1]["found"]
        for extent, row in extents.items():
            found = f"{row['found']} of {row['backdoored']}"
            rows.append(
                [models, extent, found, f"{row['of_full']} of {full}", f"{row['false_alarms']} of {row['clean']}"]
            )
    alarms = "; ".join(
        f"{extent}: {row['alarms']} of {row['models']}" for extent, row in result["reference_models"].items()
    )
    columns = ["models", "extent", "found", "of those of the full audit", "false alarms"]
    return [
        f"**{title}** {_time(result)}False alarms of the reference models, each compared with the others: {alarms}.",
        "",
        *grid(columns, rows),
        "",
    ]


def _time(result: dict) -> str:
    figures = result.get("time")
    if figures is None:
        return ""
    return (
        f"One quick audit of the third-party ResNet-20 took {figures['cpu_seconds']:.0f} CPU seconds (one thread, "
        f"float32) and {figures['peak_mib']:.0f} MiB: {len(figures['completed'])} of {figures['tests_of_full_audit']} "
        f"tests, verdict {figures['verdict']}. "
    )
