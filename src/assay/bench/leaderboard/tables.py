"""Records and rows as files for machines.

A rate ``x`` of a result becomes the columns ``x``, ``x_low``, ``x_high`` and ``x_samples``. Pictures are in the JSON
file only.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from assay._version import __version__
from assay.bench.cells import MatrixEntry
from assay.bench.records import Record
from assay.bench.spec import Method, TaskSpec, ValidityCriteria
from assay.bench.statistics import AttackRow, DetectorRow, EntryRecord, MitigationRow, flat
from assay.io.csv import csv_text
from assay.io.jsonable import encodable, jsonable

SCHEMA = "assay.records/1"

Row = AttackRow | DetectorRow | MitigationRow

TYPES = {
    **dict.fromkeys(("key", "kind", "state", "task", "chain", "attack", "method"), "string"),
    "seed": "int64",
    **dict.fromkeys(("data", "arch", "start"), "string"),
    "limit": "int64",
    **dict.fromkeys(("steps", "repair"), "string"),
    "samples": "int64",
    **dict.fromkeys((f"band_{field.name}" for field in fields(ValidityCriteria)), "float64"),
    "error": "string",
    "seconds": "float64",
    "place": "string",
    "tries": "int64",
}
"""The columns that every record has, with their types in Parquet; those of the results follow."""


def records_csv(found: Iterable[EntryRecord]) -> bytes:
    """One line a record."""
    rows = [record_row(*pair) for pair in found]
    return csv_text(rows, _columns(rows))


def aggregated_csv(kind: type[Row], rows: Iterable[Row]) -> bytes:
    """One line for each of the ``rows``; the header stands even where there are none."""
    columns = [
        column
        for field in fields(kind)
        for column in ([field.name, f"{field.name}_low", f"{field.name}_high"] if _is_figure(field) else [field.name])
    ]
    return csv_text([flat(row) for row in rows], columns)


def records_json(found: Iterable[EntryRecord], *, title: str) -> bytes:
    """All that the store knows of each record, with its place in the matrix; a number that is not finite is a word."""
    records = [
        {"task": entry.task, "chain": entry.chain, "attack": entry.attack, **asdict(record)} for entry, record in found
    ]
    document = {"schema": SCHEMA, "version": __version__, "title": title, "records": records}
    return (json.dumps(jsonable(document, not_finite="text"), allow_nan=False, indent=1) + "\n").encode("ascii")


def records_parquet(found: Iterable[EntryRecord]) -> bytes:
    """The same columns as the CSV file, typed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [record_row(*pair) for pair in found]
    arrays = {}
    for name in _columns(rows):
        values = [_encodable(row.get(name)) for row in rows]
        kind = TYPES.get(name)
        arrays[_encodable(name)] = _inferred(values) if kind is None else pa.array(values, pa.type_for_alias(kind))
    stream = io.BytesIO()
    pq.write_table(pa.table(arrays), stream)
    return stream.getvalue()


def record_row(entry: MatrixEntry, record: Record) -> dict[str, Any]:
    """A record in one row of plain values."""
    cell, band = entry.cell, entry.cell.valid
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
        **{
            f"band_{field.name}": None if band is None else getattr(band, field.name)
            for field in fields(ValidityCriteria)
        },
        "error": record.error,
        "seconds": record.seconds,
        "place": record.place,
        "tries": record.tries,
    }
    for name, value in _flat_result(record.result or {}):
        row[f"result_{name}" if name in TYPES else name] = value
    return row


def steps_text(steps: Sequence[Method]) -> str:
    """``train (epochs=3) > badnets``."""
    return " > ".join(f"{step.name} ({', '.join(step.settings)})" if step.settings else step.name for step in steps)


def data_text(task: TaskSpec) -> str:
    """``signs:10, at most 3,000 samples a split``."""
    return task.data + (f", at most {task.limit:,} samples a split" if task.limit else "")


def net_text(task: TaskSpec) -> str:
    """The net before anything is done to it, in words."""
    if task.start is None:
        return f"a fresh {task.arch}"
    return task.start + (f" ({task.arch})" if task.arch else "")


def is_rate(value: Any) -> bool:
    """Whether a part of a result is a share with its interval, as ``metrics.Rate`` writes it."""
    return isinstance(value, Mapping) and {"value", "interval", "samples"} <= set(value)


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


def _encodable(value: Any) -> Any:
    return encodable(value) if isinstance(value, str) else value


def _inferred(values: list[Any]) -> Any:
    """A column whose type the values say; where they disagree, JSON texts."""
    import pyarrow as pa

    try:
        array = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array(
            [None if value is None else json.dumps(jsonable(value, not_finite="text")) for value in values], pa.string()
        )
    return array.cast(pa.string()) if pa.types.is_null(array.type) else array


def _is_figure(field: Any) -> bool:
    return "Figure" in str(field.type)
