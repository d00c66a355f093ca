"""Records of a matrix as one text file, for version control.

The first line holds the origin, the number of missing cells and the specification; every other line holds a cell.
Cells are named by their content, so that records of another version of assay or torch can be reported. Numbers have
six digits. The file keeps only images of seed 0: the planted trigger, and the images of the full audit.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.bench import matrix
from assay.bench.cells import Cell, MatrixEntry
from assay.bench.job import Outcome
from assay.bench.records import FINAL, Record, Records
from assay.bench.spec import FULL_AUDIT
from assay.bench.spec_reader import parse_text
from assay.bench.store import Store
from assay.core.errors import UnusableInput
from assay.core.lookup import lookup
from assay.io.atomic import write_atomically
from assay.io.files import parse_json, read_text

DIGITS = 6  # significant digits of every number

MAX_ARCHIVE_BYTES = 2**28


@dataclass(frozen=True)
class Archive:
    """Content of a file of records."""

    spec: str  # YAML
    origin: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]  # one per cell


def write_archive(records: Records, name: str, path: Path, *, origin: Mapping[str, Any]) -> tuple[int, int]:
    """Write the records of one specification.

    Args:
        records: the store.
        name: name of the specification.
        path: the file.
        origin: facts about the run, for instance versions and machine.

    Returns:
        The number of records, and the number of cells without a final state.

    Raises:
        UnusableInput: there is no such specification, or the file cannot be written.
    """
    text = lookup(name, records.specs(), f"spec in {records.directory} called")
    cells = matrix.cells_of(parse_text(text))
    rows = [_row(cells[record.key], record) for record in records.records() if record.key in cells]
    missing = len(cells) - sum(row["state"] in FINAL for row in rows)
    lines = [{"origin": dict(origin), "missing": missing, "spec": text}, *rows]
    write_atomically(path, "\n".join(json.dumps(line, sort_keys=True) for line in lines) + "\n")
    return len(rows), missing


def read_archive(path: Path) -> Archive:
    """Return the content of a file of records. Raises UnusableInput if it cannot be read or is no such file."""
    try:
        head, *rows = [parse_json(line, str(path)) for line in read_text(path, most=MAX_ARCHIVE_BYTES).splitlines()]
        complete = all({"cell", "what", "state", "result", "error", "seconds"} <= set(row) for row in rows)
        if not complete or not isinstance(head["spec"], str):
            raise ValueError("a line lacks a field")
        return Archive(head["spec"], head.get("origin", {}), tuple(rows))
    except UnusableInput as error:
        raise UnusableInput(f"{error} (expected a file of `assay bench export`)") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UnusableInput(f"{path}: expected a file of `assay bench export`: a line of JSON per cell") from None


def import_archive(path: Path, store: Store) -> int:
    """Add the records of a file to a store, under the keys of the installed versions.

    Args:
        path: the file.
        store: the records. Existing results there stay.

    Returns:
        The number of added records.

    Raises:
        UnusableInput: the file is no archive, or its specification has no cell of a record.
    """
    archive = read_archive(path)
    spec = parse_text(archive.spec)
    cells = {cell.content: cell for cell in matrix.cells_of(spec).values()}
    store.add_spec(spec.name, archive.spec)
    store.add((cell.key, cell.kind, cell.about()) for cell in cells.values())
    added = 0
    for row in archive.rows:
        cell = cells.get(row["cell"])
        if cell is None:
            raise UnusableInput(f"{path}: the spec {spec.name!r} in it has no cell of the record {row['what']!r}")
        if row["state"] in FINAL and store.claim(cell.key):
            store.finish(cell.key, Outcome(row["state"], row["result"], row["error"], row["seconds"] or 0.0))
            added += 1
    return added


def archived_records(path: Path) -> list[tuple[MatrixEntry, Record]]:
    """Return every cell of the matrix of an archive, with its record. Raises like ``import_archive``."""
    with tempfile.TemporaryDirectory() as folder, closing(Store(Path(folder))) as store:
        with store:
            import_archive(path, store)
        return matrix.entry_records(store)


def _row(cell: Cell, record: Record) -> dict[str, Any]:
    result = dict(record.result or {})
    if cell.seed != 0 or (cell.kind != "measure" and cell.method != FULL_AUDIT):
        result.pop("pictures", None)
    return {
        "cell": cell.content,
        "what": str(cell),
        "state": record.state,
        "result": _rounded(result),
        "error": record.error,
        "seconds": _rounded(record.seconds),
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value
