"""The leaderboard of a bench: one self-contained page, and everything on it as CSV, JSON and Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from assay.bench import statistics
from assay.bench.statistics import Found
from assay.report.files import publish
from assay.report.leaderboard.content import Board
from assay.report.leaderboard.page import to_html
from assay.report.leaderboard.tables import aggregated_csv, records_csv, records_json, records_parquet

__all__ = ["write_leaderboard"]


def write_leaderboard(found: Sequence[Found], directory: Path, *, title: str, store: Path) -> dict[str, Path]:
    """Write index.html, records.{csv,json,parquet} and {attacks,detectors,mitigations}.csv; the paths by those names.

    ``found``: every cell that the matrix asks for with its record, those that have not run among them. ``store`` is
    named in the commands that compute a record again. All files appear or, when the disk does not take them
    (UnusableInput), none; other files in the folder stay.
    """
    board = Board(
        found,
        statistics.attack_rows(found),
        statistics.detector_rows(found),
        statistics.mitigation_rows(found),
    )
    return publish(
        directory,
        {
            "index.html": to_html(board, title=title, store=store).encode("utf-8", "backslashreplace"),
            "records.csv": records_csv(found),
            "records.json": records_json(found, title=title),
            "records.parquet": records_parquet(found),
            "attacks.csv": aggregated_csv(statistics.AttackRow, board.attacks),
            "detectors.csv": aggregated_csv(statistics.DetectorRow, board.detectors),
            "mitigations.csv": aggregated_csv(statistics.MitigationRow, board.mitigations),
        },
    )
