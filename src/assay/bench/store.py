"""The records of a bench: SQLite, in a folder. Several drivers may share it; one that is killed loses what it was at.

A driver holds a lock on a file of its own for as long as it lives. The kernel lets go of it whatever kills the driver,
so that nobody has to trust a clock to tell a running cell from a lost one.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from assay.bench.records import FINAL, RECORDS, VERSION, Records, State
from assay.core.errors import UnusableInput

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS specs (name TEXT PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS inputs (name TEXT PRIMARY KEY, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cells (
    key TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    about TEXT NOT NULL,              -- the cell's fields, as JSON
    state TEXT NOT NULL DEFAULT 'waiting',
    driver TEXT,                      -- who runs it
    tries INTEGER NOT NULL DEFAULT 0, -- how often it was lost with its worker
    result TEXT,                      -- JSON
    error TEXT,
    seconds REAL,
    place TEXT                        -- host and process that ran it
);
CREATE INDEX IF NOT EXISTS by_state ON cells (state);
"""


class Store(Records):
    """``directory`` with ``records.sqlite``. A context manager: inside it this process counts as a living driver."""

    def __init__(self, directory: Path) -> None:
        """Makes the store where there is none.

        Raises UnusableInput where it is a newer version's, cannot be written, or is no store.
        """
        self.driver = uuid.uuid4().hex
        try:
            directory.mkdir(parents=True, exist_ok=True)
            super().__init__(directory, sqlite3.connect(directory / RECORDS, timeout=60, isolation_level=None))
            self.check_made_by()  # before anything there is touched
            (directory / "drivers").mkdir(exist_ok=True)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")  # a record that is written survives a power cut
            self._make_tables()
        except OSError as error:
            raise UnusableInput(f"{directory}: the store cannot be written: {error.strerror or error}") from None
        except sqlite3.Error as error:
            raise UnusableInput(f"{directory}: the store cannot be used: {error}") from None

    def _make_tables(self) -> None:
        with self._transaction():
            for statement in _TABLES.split(";"):
                if statement.strip():
                    self._db.execute(statement)
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('version', ?)", (str(VERSION),))

    def __enter__(self) -> Store:
        path = self.directory / "drivers" / self.driver
        self._lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(UnusableInput):  # of a full disk: whoever runs next takes over what this driver had
            self._free(self.driver)
        (self.directory / "drivers" / self.driver).unlink(missing_ok=True)
        os.close(self._lock)

    def _write(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        with self._told():
            return self._db.execute(statement, values)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raises UnusableInput in place of what SQLite says of a disk that is full or gone."""
        try:
            yield
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            hint = ". What was recorded is safe: make room, and the same command goes on" if full else ""
            raise UnusableInput(f"{self.directory}: the records cannot be written: {error}{hint}") from None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._told():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:  # a full disk ends it by itself
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def add(self, cells: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
        """Cells as (key, kind, fields), as waiting; those that are there stay as they are."""
        rows = ((key, kind, json.dumps(about)) for key, kind, about in cells)
        with self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO cells (key, kind, about) VALUES (?, ?, ?)", rows)

    def add_spec(self, name: str, text: str) -> bool:
        """The text of a spec, so that the report can name the cells. Returns whether it takes another text's place."""
        before = self.specs().get(name, text)
        self._write("INSERT OR REPLACE INTO specs VALUES (?, ?)", (name, text))
        return before != text

    def expect(self, digests: Mapping[str, str]) -> None:
        """Note what the records are made from, by name. Raises UnusableInput where an earlier run had something else.

        A cell names its data and weights by path: new content under an old path would pass for what was measured.
        """
        with self._transaction():
            known = dict(self._db.execute("SELECT name, digest FROM inputs"))
            if not self._db.execute(f"SELECT 1 FROM cells WHERE state IN {FINAL} LIMIT 1").fetchone():
                self._db.execute("DELETE FROM inputs")  # nothing was made from them
                known = {}
            for name, digest in digests.items():
                if known.get(name, digest) != digest:
                    raise UnusableInput(
                        f"{self.directory}: the records of {name} were made from other content than is there now: "
                        "put the old data and weights back, or take another store"
                    )
            self._db.executemany("INSERT OR IGNORE INTO inputs VALUES (?, ?)", digests.items())

    def claim(self, key: str) -> bool:
        """Whether the cell was waiting, and is this driver's to run now."""
        done = self._write(
            "UPDATE cells SET state='running', driver=? WHERE key=? AND state='waiting'", (self.driver, key)
        )
        return done.rowcount == 1

    def finish(
        self,
        key: str,
        state: State,
        *,
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
        seconds: float | None = None,
        place: str | None = None,
    ) -> None:
        """Write what became of a cell that this driver ran; a cell that is no longer its own is left alone."""
        self._write(
            "UPDATE cells SET state=?, result=?, error=?, seconds=?, place=?, driver=NULL WHERE key=? AND driver=?",
            (state, None if result is None else json.dumps(result), error, seconds, place, key, self.driver),
        )

    def lost(self, key: str) -> int:
        """The cell's worker died: it waits again. Returns how often that has happened to it."""
        with self._transaction():
            self._db.execute(
                "UPDATE cells SET state='waiting', driver=NULL, tries=tries+1 WHERE key=? AND driver=?",
                (key, self.driver),
            )
            return int(self._db.execute("SELECT tries FROM cells WHERE key=?", (key,)).fetchone()[0])

    def take_over(self) -> int:
        """Cells of drivers that live no longer wait again; how many there were."""
        drivers = [name for (name,) in self._db.execute("SELECT DISTINCT driver FROM cells WHERE state='running'")]
        return sum(self._free(driver) for driver in drivers if driver != self.driver and not self._lives(driver))

    def _free(self, driver: str) -> int:
        freed = self._write(
            "UPDATE cells SET state='waiting', driver=NULL WHERE state='running' AND driver=?", (driver,)
        )
        return freed.rowcount

    def _lives(self, driver: str) -> bool:
        try:
            handle = os.open(self.directory / "drivers" / driver, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        (self.directory / "drivers" / driver).unlink(missing_ok=True)
        return False

    def again(self, keys: Iterable[str]) -> None:
        """Failed cells wait again."""
        with self._transaction():
            self._db.executemany(
                "UPDATE cells SET state='waiting', tries=0, error=NULL WHERE key=? AND state='failed'",
                ((key,) for key in keys),
            )
