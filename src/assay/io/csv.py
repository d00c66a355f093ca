"""CSV files that are safe to open in a spreadsheet: no cell is a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# First characters of texts that a spreadsheet runs as a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    """Return a CSV file with a header and one line for each row.

    Args:
        rows: Values by column. A text that starts like a formula gets an apostrophe in front.
        columns: Names of the columns, in order.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_defuse(row.get(column)) for column in columns] for row in rows)
    return stream.getvalue().encode("utf-8", "backslashreplace")


def _defuse(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
