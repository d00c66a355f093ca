"""The records of whole matrices in compact form, and the page of them.

    assay bench run benchmarks/specs/first.yaml --store STORE     # computes the matrix; resumable
    python benchmarks/run.py matrices keep STORE NAME                 # -> benchmarks/results/matrices/NAME.jsonl
    python benchmarks/run.py matrices pages OUT                       # a leaderboard of each that is kept
    python benchmarks/run.py matrices restore NAME STORE              # a store with what is kept, to go on from

A file has a line on where it comes from, with the spec, and then a line a cell, named by what it computes. Of the
pictures only those of seed 0 are kept: the planted trigger, and what the whole audit shows.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from lib.rows import RESULTS, origin

from assay.bench import matrix
from assay.bench.cells import Cell, MatrixEntry
from assay.bench.leaderboard import write_leaderboard
from assay.bench.records import FINAL, Record, open_existing
from assay.bench.spec import FULL_AUDIT
from assay.bench.spec_reader import parse_text
from assay.bench.store import Store

PLACE = RESULTS / "matrices"
DIGITS = 6  # of every number that is kept


def keep(store: Path, name: str) -> None:
    with closing(open_existing(store)) as records:
        text = records.specs()[name]
        cells = matrix.cells_of(parse_text(text))
        rows = [row(cells[record.key], record) for record in records.records() if record.key in cells]
    missing = len(cells) - sum(row["state"] in FINAL for row in rows)
    lines = [{"origin": origin(), "missing": missing, "spec": text}, *rows]
    PLACE.mkdir(parents=True, exist_ok=True)
    (PLACE / f"{name}.jsonl").write_text("\n".join(json.dumps(line, sort_keys=True) for line in lines) + "\n")
    print(f"-> {PLACE / name}.jsonl: {len(rows)} cells, {missing} of the matrix missing")


def row(cell: Cell, record: Record) -> dict[str, Any]:
    result = dict(record.result or {})
    if cell.seed != 0 or (cell.kind != "measure" and cell.method != FULL_AUDIT):
        result.pop("pictures", None)
    return {
        "cell": cell.content,
        "what": str(cell),
        "state": record.state,
        "result": rounded(result),
        "error": record.error,
        "seconds": rounded(record.seconds),
    }


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list) else value


def lines_of(path: Path) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Where a file comes from, and its cells."""
    head, *rest = path.read_text().splitlines()
    return json.loads(head), map(json.loads, rest)


def put_back(path: Path, store: Store) -> None:
    """The cells of a file into a store, under the keys that they have in this version."""
    head, rows = lines_of(path)
    spec = parse_text(head["spec"])
    cells = {cell.content: cell for cell in matrix.cells_of(spec).values()}
    store.add_spec(spec.name, head["spec"])
    store.add((cell.key, cell.kind, cell.about()) for cell in cells.values())
    for kept in rows:
        cell = cells[kept["cell"]]
        if kept["state"] in FINAL and store.claim(cell.key):
            fields = {name: kept[name] for name in ("result", "error", "seconds")}
            store.finish(cell.key, kept["state"], **fields)


def restore(name: str, place: Path) -> None:
    with closing(Store(place)) as store, store:
        put_back(PLACE / f"{name}.jsonl", store)


def found(path: Path) -> list[tuple[MatrixEntry, Record]]:
    """Every cell of a file's matrix with its place."""
    with tempfile.TemporaryDirectory() as folder, closing(Store(Path(folder))) as store:
        with store:
            put_back(path, store)
        return matrix.entry_records(store)


def stages_run(path: Path) -> tuple[int, int]:
    """How many models there are to build (distinct prefixes of chains), and how many stages ran for that."""
    builds = [row["result"] for row in lines_of(path)[1] if row["what"].startswith("build ") and row["result"]]
    return len(builds), sum(result["stages_run"] for result in builds)


def pages(out: Path) -> None:
    """One a matrix: on a page of all of them most cells would be empty, since each asks for something else."""
    for path in sorted(PLACE.glob("*.jsonl")):
        spec = str(lines_of(path)[0]["spec"])
        files = write_leaderboard(found(path), out / path.stem, title=path.stem, specs={parse_text(spec).name: spec})
        print(files["index.html"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["keep"]:
        keep(Path(sys.argv[2]), sys.argv[3])
    elif sys.argv[1:2] == ["restore"]:
        restore(sys.argv[2], Path(sys.argv[3]))
    else:
        pages(Path(sys.argv[2]))
