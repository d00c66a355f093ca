"""Committed records of whole matrices, and their leaderboards.

    assay bench run benchmarks/specs/first.yaml --store STORE     # computes the matrix; resumable
    python benchmarks/run.py matrices keep STORE NAME                 # -> benchmarks/results/matrices/NAME.jsonl
    python benchmarks/run.py matrices pages OUT                       # a leaderboard of each, and an index of all
    python benchmarks/run.py matrices restore NAME STORE              # a store with these records, to continue from

``assay.bench.archive`` describes the files.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from lib import commands
from lib.paths import MATRICES
from lib.results import origin

from assay.bench.archive import archived_records, import_archive, read_archive, write_archive
from assay.bench.cells import MatrixEntry
from assay.bench.leaderboard import MatrixSummary, write_index, write_leaderboard
from assay.bench.records import Record, open_existing
from assay.bench.spec_reader import parse_text
from assay.bench.store import Store


def keep(store: Path, name: str) -> None:
    """Write the records of one specification in a store to the committed file."""
    MATRICES.mkdir(parents=True, exist_ok=True)
    path = MATRICES / f"{name}.jsonl"
    with closing(open_existing(store)) as records:
        count, missing = write_archive(records, name, path, origin=origin())
    print(f"-> {path}: {count} cells, {missing} of the matrix missing")


def restore(name: str, directory: Path) -> None:
    """Add the committed records of a matrix to a store."""
    with closing(Store(directory)) as store, store:
        import_archive(MATRICES / f"{name}.jsonl", store)


def cells_and_records(path: Path) -> list[tuple[MatrixEntry, Record]]:
    """Return every cell of a committed matrix with its record."""
    return archived_records(path)


def stages_run(path: Path) -> tuple[int, int]:
    """Return the number of built models (distinct prefixes of chains), and of stages that ran for them."""
    rows = read_archive(path).rows
    builds = [row["result"] for row in rows if row["what"].startswith("build ") and row["result"]]
    return len(builds), sum(result["stages_run"] for result in builds)


def pages(out: Path) -> None:
    """Write a leaderboard of each committed matrix, and an index of all.

    The matrices share few attacks, chains and detectors. A single page of all of them would be mostly empty.
    """
    summaries = []
    for path in sorted(MATRICES.glob("*.jsonl")):
        spec, pairs = read_archive(path).spec, archived_records(path)
        files = write_leaderboard(pairs, out / path.stem, title=path.stem, specs={parse_text(spec).name: spec})
        summaries.append(MatrixSummary.of(path.stem, f"{path.stem}/index.html", pairs))
        print(files["index.html"])
    print(f"Index: {write_index(summaries, out)}")


def cli() -> None:
    """Run the command line."""
    command_line = commands.parser(__doc__)
    add_command = commands.subcommands(command_line)
    keep_parser = add_command("keep", keep, "write the records of a store to the committed file")
    keep_parser.add_argument("store", type=Path)
    keep_parser.add_argument("name")
    add_command("pages", pages, "write the leaderboards").add_argument("out", type=Path)
    restore_parser = add_command("restore", restore, "add the committed records to a store")
    restore_parser.add_argument("name")
    restore_parser.add_argument("directory", type=Path, metavar="STORE")
    commands.run(command_line)
