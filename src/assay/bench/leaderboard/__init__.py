"""The leaderboard of a bench: one self-contained page, and everything on it as CSV, JSON and Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from assay.bench import statistics
from assay.bench.leaderboard.commands import spec_files
from assay.bench.leaderboard.content import Board
from assay.bench.leaderboard.page import to_html
from assay.bench.leaderboard.tables import aggregated_csv, records_csv, records_json, records_parquet
from assay.bench.statistics import EntryRecord
from assay.io.atomic import publish

__all__ = ["write_leaderboard"]


def write_leaderboard(
    found: Sequence[EntryRecord], directory: Path, *, title: str, specs: Mapping[str, str]
) -> dict[str, Path]:
    """Write index.html, records.{csv,json,parquet}, {attacks,detectors,mitigations}.csv and the specs; paths by names.

    ``found``: every cell that the matrix asks for with its record, those that have not run among them. ``specs``: the
    texts of what asks for them, by name, for whoever wants to compute a record again. All files appear or, when the
    disk does not take them (UnusableInput), none; other files in the folder stay.
    """
    board = Board(
        found,
        list(specs),
        statistics.attack_rows(found),
        statistics.detector_rows(found),
        statistics.mitigation_rows(found),
    )
    return publish(
        directory,
        {
            "index.html": to_html(board, title=title).encode("utf-8", "backslashreplace"),
            "records.csv": records_csv(found),
            "records.json": records_json(found, title=title),
            "records.parquet": records_parquet(found),
            "attacks.csv": aggregated_csv(statistics.AttackRow, board.attacks),
            "detectors.csv": aggregated_csv(statistics.DetectorRow, board.detectors),
            "mitigations.csv": aggregated_csv(statistics.MitigationRow, board.mitigations),
            **{file: specs[name].encode() for name, file in spec_files(specs).items()},
        },
    )
