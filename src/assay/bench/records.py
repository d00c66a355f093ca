"""Read access to the records of a bench. The driver writes them through ``store``."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from assay.core.errors import UnusableInput, first_line

VERSION = 1  # of the tables
RECORDS = "records.sqlite"  # file name in a store
State = Literal["waiting", "running", "done", "failed", "invalid"]
FINAL: tuple[State, ...] = ("done", "failed", "invalid")

_SELECT = "SELECT key, kind, about, state, result, error, seconds, place, tries FROM cells"


@dataclass(frozen=True)
class Record:
    """Fields, state and result of one cell."""

    key: str
    kind: str
    about: Mapping[str, Any]
    state: State
    result: Mapping[str, Any] | None = None
    error: str | None = None
    seconds: float | None = None
    place: str | None = None  # host and process
    tries: int = 0  # number of lost workers


class Records:
    """Content of a store. Opened by ``open_existing``, or as the ``Store`` of a driver."""

    def __init__(self, directory: Path, db: sqlite3.Connection) -> None:
        self.directory = directory
        self._db = db

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def specs(self) -> dict[str, str]:
        """Return the texts of all specifications by name."""
        with self._one_line():
            return dict(self._db.execute("SELECT name, text FROM specs ORDER BY name"))

    def states(self) -> dict[str, State]:
        """Return the state of every cell by key."""
        with self._one_line():
            return dict(self._db.execute("SELECT key, state FROM cells"))

    def record(self, key: str) -> Record | None:
        """Return the record with a key; None if there is none."""
        with self._one_line():
            row = self._db.execute(_SELECT + " WHERE key=?", (key,)).fetchone()
        return None if row is None else self._record(row)

    def records(self) -> Iterator[Record]:
        """Yield all records in the order of their addition. Raises UnusableInput if they cannot be read."""
        with self._one_line():
            for row in self._db.execute(_SELECT + " ORDER BY rowid"):
                yield self._record(row)

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        """Turn errors of a damaged database into UnusableInput."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise UnusableInput(f"{self.directory}: the records cannot be read: {first_line(error)}") from None

    def _record(self, row: tuple[Any, ...]) -> Record:
        key, kind, about, state, result, error, seconds, place, tries = row
        try:
            fields, parsed = json.loads(about), None if result is None else json.loads(result)
            if not isinstance(fields, dict) or not isinstance(parsed, dict | None):
                raise TypeError("expected JSON objects")
            return Record(key, kind, fields, state, parsed, error, seconds, place, tries)
        except (ValueError, TypeError, RecursionError):  # no JSON, or no text
            raise UnusableInput(f"{self.directory}: the record {key} is damaged. Fix: take another store") from None

    def mean_seconds(self) -> dict[tuple[str, str], float]:
        """Return the mean seconds of finished cells by kind and method."""
        question = (
            "SELECT kind, json_extract(about, '$.method'), avg(seconds) FROM cells WHERE state='done' GROUP BY 1, 2"
        )
        with self._one_line():
            rows = self._db.execute(question).fetchall()
        return {(kind, method): seconds for kind, method, seconds in rows if seconds is not None}

    def has_tables(self) -> bool:
        """Return True if the tables are there. Raises UnusableInput if they are foreign, or of a newer version."""
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        if not tables:
            return False
        row = None
        if {"meta", "specs", "cells"} <= tables:
            row = self._db.execute("SELECT value FROM meta WHERE name='version'").fetchone()
        if row is None or not str(row[0]).isdecimal():
            raise UnusableInput(
                f"{self.directory}: {RECORDS} there was not made by assay bench. Fix: choose another folder"
            )
        if int(row[0]) > VERSION:
            raise UnusableInput(
                f"{self.directory}: expected a store of version {VERSION} or older, got {row[0]}. "
                "Fix: use the assay that made it, or a newer one"
            )
        return True


def open_existing(directory: Path) -> Records:
    """Return the store in ``directory``, read-only. The folder need not be writable.

    Raises:
        UnusableInput: there is no store, or it cannot be read.
    """
    path = directory / RECORDS
    if not path.is_file():
        raise UnusableInput(
            f"{directory}: expected the store of a bench, with {RECORDS} in it. Fix: make one with `assay bench run`"
        )
    try:
        records = Records(directory, _connect_read_only(path))
        if not records.has_tables():
            raise UnusableInput(f"{directory}: {RECORDS} there is empty. Fix: run a matrix into it first")
    except OSError as error:
        raise UnusableInput(f"{directory}: the store cannot be read: {error.strerror or error}") from None
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter: SQLite quotes damaged names
        raise UnusableInput(f"{directory}: the store cannot be used: {first_line(error)}") from None
    return records


def _connect_read_only(path: Path) -> sqlite3.Connection:
    """Return a read-only connection. Without write access to the folder, SQLite gets a copy in memory."""
    with suppress(sqlite3.OperationalError), ExitStack() as on_failure:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60, isolation_level=None)
        on_failure.callback(db.close)
        db.execute("SELECT count(*) FROM sqlite_master")
        on_failure.pop_all()
        return db
    with tempfile.TemporaryDirectory(prefix="assay-records-") as folder:
        for part in (path, path.with_name(f"{RECORDS}-wal")):
            if part.exists():
                shutil.copyfile(part, Path(folder) / part.name)
        copy, memory = sqlite3.connect(Path(folder) / RECORDS), sqlite3.connect(":memory:", isolation_level=None)
        copy.backup(memory)
        copy.close()
    return memory
