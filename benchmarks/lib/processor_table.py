"""Table of ``benchmarks/run.py processors``."""

from __future__ import annotations

from typing import Any

from lib.table_parts import grid


def processors_table(result: dict[str, Any], title: str) -> list[str]:
    """Return one row for each image processor with an equal or different outcome, and the others in one sentence.

    Args:
        result: The result file.
        title: The title.
    """
    rows, others = [], []
    for name, row in result["models"].items():
        counts, outcomes = row["counts"], row["outcomes"]
        used = counts.get("equal", 0) + counts.get("square", 0) + counts.get("different", 0)
        if not used:
            others.append(name.removesuffix("ImageProcessor"))
            continue
        refused = [setting for setting, outcome in outcomes.items() if outcome == "refused"]
        rows.append(
            [
                name.removesuffix("ImageProcessor"),
                outcomes["defaults"],
                outcomes.get("mean and std null", ""),
                *(str(counts.get(kind, 0)) for kind in ("equal", "square", "different", "fails")),
                f"{len(refused)}: {', '.join(refused[:4])}{', ...' if len(refused) > 4 else ''}" if refused else "0",
            ]
        )
    count = sum(len(row["outcomes"]) for row in result["models"].values())
    missing = result["classes"] - len(result["models"])
    unmeasured = f" (the other {missing} are not measured yet)" if missing else ""
    summary = (
        f"transformers {result['transformers']}, {len(result['models'])} of its {result['classes']} classes with a "
        f"pillow backend{unmeasured}, {count:,} cases, photos of {result['images']} sizes: "
        f"{result['settings']} settings for each class, or {result['first_settings']} if all of these are refused. "
        "Equal: no pixel differs by more than one step of 8 bits. Square: the shape depends on the image, which a note "
        "states; equal on an image of the input's size. Fails: transformers itself fails, or returns no image. The "
        "last column names settings that assay refuses in one line. Refused or failing with all settings tried: "
        f"{', '.join(others) or 'none'}."
    )
    head = ["processor", "defaults", "no mean", "equal", "square", "different", "fails", "refused"]
    return [f"**{title}** {summary}", "", *grid(head, rows), ""]
