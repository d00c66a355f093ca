"""The leaderboard of a bench: a self-contained page, and its data as CSV, JSON and Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from assay.bench.leaderboard.board import Board
from assay.bench.leaderboard.commands import spec_files
from assay.bench.leaderboard.index import MatrixSummary, write_index
from assay.bench.leaderboard.page import to_html
from assay.bench.leaderboard.tables import aggregated_csv, records_csv, records_json, records_parquet
from assay.bench.statistics import AttackRow, DetectorRow, EntryRecord, MitigationRow
from assay.io.atomic import publish

__all__ = ["MatrixSummary", "write_index", "write_leaderboard"]


def write_leaderboard(
    pairs: Sequence[EntryRecord], directory: Path, *, title: str, specs: Mapping[str, str]
) -> dict[str, Path]:
    """Write index.html, records.{csv,json,parquet}, {attacks,detectors,mitigations}.csv and the specifications.

    The folder gets all files, or none. Other files in it stay.

    Args:
        pairs: every cell of the matrix with its record, including waiting cells.
        directory: folder of the files.
        title: title of the page.
        specs: texts of the specifications by name, for repeating a record.

    Returns:
        The paths by file name.

    Raises:
        UnusableInput: the disk refuses a file.
    """
    board = Board.of(pairs, list(specs))
    return publish(
        directory,
        {
            "index.html": to_html(board, title=title).encode("utf-8", "backslashreplace"),
            "records.csv": records_csv(pairs),
            "records.json": records_json(pairs, title=title),
            "records.parquet": records_parquet(pairs),
            "attacks.csv": aggregated_csv(AttackRow, board.attacks),
            "detectors.csv": aggregated_csv(DetectorRow, board.detectors),
            "mitigations.csv": aggregated_csv(MitigationRow, board.mitigations),
            **{file: specs[name].encode() for name, file in spec_files(specs).items()},
        },
    )
