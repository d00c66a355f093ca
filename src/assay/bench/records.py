"""What is in a store of the bench, to be read: by the driver that writes it (store.py), and by those that only look."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from assay.core.errors import UnusableInput

VERSION = 1
State = Literal["waiting", "running", "done", "failed", "invalid"]
RECORDS = "records.sqlite"
FINAL: tuple[State, ...] = ("done", "failed", "invalid")


@dataclass(frozen=True)
class Record:
    """One cell and what became of it."""

    key: str
    kind: str
    about: Mapping[str, Any]
    state: State
    result: Mapping[str, Any] | None = None
    error: str | None = None
    seconds: float | None = None
    place: str | None = None
    tries: int = 0


class Records:
    """What a store holds. Opened by ``open_existing``, or as the ``Store`` that writes it."""

    def __init__(self, directory: Path, db: sqlite3.Connection) -> None:
        self.directory = directory
        self._db = db

    def close(self) -> None:
        self._db.close()

    def specs(self) -> dict[str, str]:
        """The texts of all specs by name."""
        return dict(self._db.execute("SELECT name, text FROM specs ORDER BY name"))

    def states(self) -> dict[str, State]:
        """The state of every cell by key."""
        return dict(self._db.execute("SELECT key, state FROM cells"))

    def record(self, key: str) -> Record | None:
        row = self._db.execute(_SELECT + " WHERE key=?", (key,)).fetchone()
        return None if row is None else self._record(row)

    def records(self) -> Iterator[Record]:
        """All records, in the order in which they were added."""
        try:
            for row in self._db.execute(_SELECT + " ORDER BY rowid"):
                yield self._record(row)
        except sqlite3.Error as error:
            raise UnusableInput(f"{self.directory}: the records cannot be read: {error}") from None

    def _record(self, row: tuple[Any, ...]) -> Record:
        key, kind, about, state, result, error, seconds, place, tries = row
        try:
            parsed = None if result is None else json.loads(result)
            return Record(key, kind, json.loads(about), state, parsed, error, seconds, place, tries)
        except ValueError:
            raise UnusableInput(f"{self.directory}: the record {key} is damaged: take another store") from None

    def mean_seconds(self) -> dict[tuple[str, str], float]:
        """Mean seconds of what was done, by kind and method."""
        rows = self._db.execute(
            "SELECT kind, json_extract(about, '$.method'), avg(seconds) FROM cells WHERE state='done' GROUP BY 1, 2"
        )
        return {(kind, method): seconds for kind, method, seconds in rows if seconds is not None}

    def check_made_by(self) -> bool:
        """Whether there are tables. Raises UnusableInput where they are somebody else's, or a newer version's."""
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        if not tables:
            return False
        row = None
        if {"meta", "specs", "cells"} <= tables:
            row = self._db.execute("SELECT value FROM meta WHERE name='version'").fetchone()
        if row is None or not str(row[0]).isdecimal():
            raise UnusableInput(f"{self.directory}: {RECORDS} there was not made by assay bench: choose another folder")
        if int(row[0]) > VERSION:
            raise UnusableInput(
                f"{self.directory}: the store is of version {row[0]}, and this assay knows up to {VERSION}: "
                "use the assay that made it, or a newer one"
            )
        return True


def open_existing(directory: Path) -> Records:
    """The store in ``directory``, to be read only: no record changes, and it need not be writable.

    Raises UnusableInput where there is none, or one that cannot be read.
    """
    path = directory / RECORDS
    if not path.is_file():
        raise UnusableInput(
            f"{directory}: expected the store of a bench, with {RECORDS} in it; run one with `assay bench run` first"
        )
    try:
        records = Records(directory, _connected(path))
        if not records.check_made_by():
            raise UnusableInput(f"{directory}: {RECORDS} there is empty: run something into it first")
    except OSError as error:
        raise UnusableInput(f"{directory}: the store cannot be read: {error.strerror or error}") from None
    except sqlite3.Error as error:
        raise UnusableInput(f"{directory}: the store cannot be used: {error}") from None
    return records


def _connected(path: Path) -> sqlite3.Connection:
    """A connection that reads. SQLite wants to write beside what it reads: where it may not, a copy is read."""
    with suppress(sqlite3.OperationalError), ExitStack() as unusable:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60, isolation_level=None)
        unusable.callback(db.close)
        db.execute("SELECT count(*) FROM sqlite_master")
        unusable.pop_all()
        return db
    with tempfile.TemporaryDirectory(prefix="assay-records-") as folder:
        for part in (path, path.with_name(f"{RECORDS}-wal")):
            if part.exists():
                shutil.copyfile(part, Path(folder) / part.name)
        copy, memory = sqlite3.connect(Path(folder) / RECORDS), sqlite3.connect(":memory:", isolation_level=None)
        copy.backup(memory)
        copy.close()
    return memory


_SELECT = "SELECT key, kind, about, state, result, error, seconds, place, tries FROM cells"
