"""CSV files for spreadsheets: no cell is a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from assay.io.display import escape_controls

# First characters of texts that a spreadsheet runs as a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    """Return a CSV file with a header and one line for each row.

    Args:
        rows: Values by column. Texts with the first character of a formula get an apostrophe in front. Control
            characters become escapes.
        columns: Names of the columns, in order.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values = [row.get(column) for column in columns]
        writer.writerow([_cell(value) if isinstance(value, str) else value for value in values])
    return stream.getvalue().encode("utf-8", "backslashreplace")


def _cell(text: str) -> str:
    return f"'{escape_controls(text)}" if text.startswith(FORMULA_STARTS) else escape_controls(text)
