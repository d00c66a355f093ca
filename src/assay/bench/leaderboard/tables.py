"""Records and table rows as CSV, JSON and Parquet files.

A rate ``x`` of a result becomes the columns ``x``, ``x_low``, ``x_high`` and ``x_samples``. Only the JSON file has
images.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

from assay._version import __version__
from assay.bench.cells import MatrixEntry
from assay.bench.leaderboard.cell_text import is_rate, steps_text
from assay.bench.records import Record
from assay.bench.statistics import EntryRecord, Row, flat
from assay.io.csv import csv_text
from assay.io.jsonable import encodable, jsonable

SCHEMA = "assay.records/1"

# Columns of the validity criteria, with the names of the fields.
CRITERIA = {
    "band_asr": "asr",
    "band_drop": "drop",
    "band_lift": "lift",
    "band_accuracy": "accuracy",
    "band_asleep": "inactive_asr",
}

# Columns of every record, with their types in Parquet. The columns of the results follow them.
TYPES = {
    **dict.fromkeys(("key", "kind", "state", "task", "chain", "attack", "method"), "string"),
    "seed": "int64",
    **dict.fromkeys(("data", "arch", "start"), "string"),
    "limit": "int64",
    **dict.fromkeys(("steps", "repair"), "string"),
    "samples": "int64",
    **dict.fromkeys(CRITERIA, "float64"),
    "error": "string",
    "seconds": "float64",
    "place": "string",
    "tries": "int64",
}


def records_csv(pairs: Iterable[EntryRecord]) -> bytes:
    """Return one line per record."""
    rows = [record_row(*pair) for pair in pairs]
    return csv_text(rows, _columns(rows))


def aggregated_csv(kind: type[Row], rows: Iterable[Row]) -> bytes:
    """Return one line per row, after a header with all columns.

    Args:
        kind: class of the rows.
        rows: any number of rows, possibly none.
    """
    columns: list[str] = []
    for field in fields(kind):
        estimate = "Estimate" in str(field.type)
        columns += [field.name, f"{field.name}_low", f"{field.name}_high"] if estimate else [field.name]
    return csv_text([flat(row) for row in rows], columns)


def records_json(pairs: Iterable[EntryRecord], *, title: str) -> bytes:
    """Return all fields of each record with its position in the matrix. NaN and infinities become text.

    Args:
        pairs: the records.
        title: title of the leaderboard.
    """
    records = [
        {"task": entry.task, "chain": entry.chain, "attack": entry.attack, **asdict(record)} for entry, record in pairs
    ]
    document = {"schema": SCHEMA, "version": __version__, "title": title, "records": records}
    return (json.dumps(jsonable(document, not_finite="text"), allow_nan=False, indent=1) + "\n").encode("ascii")


def records_parquet(pairs: Iterable[EntryRecord]) -> bytes:
    """Return the columns of the CSV file with types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [record_row(*pair) for pair in pairs]
    arrays = {}
    for name in _columns(rows):
        values = [encodable(value) if isinstance(value := row.get(name), str) else value for row in rows]
        kind = TYPES.get(name)
        array = _inferred_array(values) if kind is None else pa.array(values, pa.type_for_alias(kind))
        arrays[encodable(name)] = array
    stream = io.BytesIO()
    pq.write_table(pa.table(arrays), stream)
    return stream.getvalue()


def record_row(entry: MatrixEntry, record: Record) -> dict[str, Any]:
    """Return a record as one row of plain values."""
    cell, criteria = entry.cell, entry.cell.valid
    row = {
        "key": record.key,
        "kind": cell.kind,
        "state": record.state,
        "task": entry.task,
        "chain": entry.chain,
        "attack": entry.attack,
        "method": cell.method,
        "seed": cell.seed,
        "data": cell.task.data,
        "arch": cell.task.arch,
        "start": cell.task.start,
        "limit": cell.task.limit,
        "steps": steps_text(cell.steps),
        "repair": steps_text(cell.repair),
        "samples": cell.samples,
        **{column: None if criteria is None else getattr(criteria, name) for column, name in CRITERIA.items()},
        "error": record.error,
        "seconds": record.seconds,
        "place": record.place,
        "tries": record.tries,
    }
    for name, value in _flat_result(record.result or {}):
        row[f"result_{name}" if name in TYPES else name] = value
    return row


def _flat_result(result: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in result.items():
        if name == "pictures":
            continue
        if is_rate(value):
            low, high = value["interval"]
            yield from {name: value["value"], f"{name}_low": low, f"{name}_high": high}.items()
            yield f"{name}_samples", value["samples"]
        elif isinstance(value, Mapping | list | tuple):
            yield name, json.dumps(jsonable(value, not_finite="text"), allow_nan=False)
        else:
            yield name, value


def _columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys([*TYPES, *(name for row in rows for name in row)]))


def _inferred_array(values: list[Any]) -> Any:
    """Return a column of the type of its values, or of JSON texts if they have several types."""
    import pyarrow as pa

    try:
        array = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array(
            [None if value is None else json.dumps(jsonable(value, not_finite="text")) for value in values], pa.string()
        )
    return array.cast(pa.string()) if pa.types.is_null(array.type) else array
