"""Records of a bench in SQLite, shared by any number of drivers.

Each driver holds a lock on a file of its own while it runs. The kernel releases the lock however the driver dies, so
running cells are distinguished from lost ones without clocks. A killed driver loses only its running cells.
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

from assay.bench.job import Outcome
from assay.bench.records import FINAL, RECORDS, VERSION, Records
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
    driver TEXT,                      -- id of the driver that runs it
    tries INTEGER NOT NULL DEFAULT 0, -- number of lost workers
    result TEXT,                      -- JSON
    error TEXT,
    seconds REAL,
    place TEXT                        -- host and process that ran it
);
CREATE INDEX IF NOT EXISTS by_state ON cells (state);
"""


class Store(Records):
    """A folder with ``records.sqlite``. Inside the context manager this process counts as a living driver."""

    def __init__(self, directory: Path) -> None:
        """Open the store in ``directory``, or make it.

        Raises:
            UnusableInput: the folder cannot be written, holds foreign records, or those of a newer version.
        """
        self.driver = uuid.uuid4().hex
        try:
            directory.mkdir(parents=True, exist_ok=True)
            super().__init__(directory, sqlite3.connect(directory / RECORDS, timeout=60, isolation_level=None))
            self.has_tables()  # checks for foreign tables before the first write
            (directory / "drivers").mkdir(exist_ok=True)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")  # a written record survives a power cut
            with self._transaction():
                for statement in _TABLES.split(";"):
                    if statement.strip():
                        self._db.execute(statement)
                self._db.execute("INSERT OR IGNORE INTO meta VALUES ('version', ?)", (str(VERSION),))
        except OSError as error:
            raise UnusableInput(f"{directory}: the store cannot be written: {error.strerror or error}") from None
        except sqlite3.Error as error:
            raise UnusableInput(f"{directory}: the store cannot be used: {error}") from None

    def __enter__(self) -> Store:
        path = self.directory / "drivers" / self.driver
        while True:
            self._lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if path.exists():  # else another driver removed it before it was locked
                return self
            os.close(self._lock)

    def __exit__(self, *_: object) -> None:
        with suppress(UnusableInput):  # of a full disk: the next driver takes over the cells of this one
            self._release(self.driver)
        (self.directory / "drivers" / self.driver).unlink(missing_ok=True)
        os.close(self._lock)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise UnusableInput instead of the errors of SQLite, for instance of a full disk."""
        try:
            yield
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            hint = ". Recorded cells are safe. Fix: make room, and repeat the command" if full else ""
            raise UnusableInput(f"{self.directory}: the records cannot be written: {error}{hint}") from None

    def _write(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        with self._translate_errors():
            return self._db.execute(statement, values)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._translate_errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:  # a full disk ends the transaction by itself
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def add(self, cells: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
        """Add cells as (key, kind, fields) in the state *waiting*. Existing cells stay as they are."""
        rows = ((key, kind, json.dumps(about)) for key, kind, about in cells)
        with self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO cells (key, kind, about) VALUES (?, ?, ?)", rows)

    def add_spec(self, name: str, text: str) -> bool:
        """Keep the text of a specification, for the names of the cells in a report.

        Args:
            name: name of the specification.
            text: its YAML.

        Returns:
            True if there was another text of that name.
        """
        before = self.specs().get(name, text)
        self._write("INSERT OR REPLACE INTO specs VALUES (?, ?)", (name, text))
        return before != text

    def check_inputs(self, digests: Mapping[str, str]) -> None:
        """Keep the digests of the inputs by name, and compare them with those of earlier runs.

        A cell names its data and weights by path. Without this check, results of new content under an old path would
        be mixed with those of the old content.

        Raises:
            UnusableInput: an input has changed since results were made from it.
        """
        with self._transaction():
            known = dict(self._db.execute("SELECT name, digest FROM inputs"))
            if not self._db.execute(f"SELECT 1 FROM cells WHERE state IN {FINAL} LIMIT 1").fetchone():
                self._db.execute("DELETE FROM inputs")  # no result depends on them
                known = {}
            for name, digest in digests.items():
                if known.get(name, digest) != digest:
                    raise UnusableInput(
                        f"{self.directory}: the records of {name} were made from other content than is there now. "
                        "Fix: restore the old data and weights, or take another store"
                    )
            self._db.executemany("INSERT OR IGNORE INTO inputs VALUES (?, ?)", digests.items())

    def claim(self, key: str) -> bool:
        """Assign a waiting cell to this driver. Returns False if the cell was not waiting."""
        done = self._write(
            "UPDATE cells SET state='running', driver=? WHERE key=? AND state='waiting'", (self.driver, key)
        )
        return done.rowcount == 1

    def finish(self, key: str, outcome: Outcome) -> None:
        """Write the outcome of a claimed cell. Cells of other drivers stay as they are."""
        result = None if outcome.result is None else json.dumps(outcome.result)
        ran = (outcome.seconds or None, outcome.place or None)  # None: ended without running
        self._write(
            "UPDATE cells SET state=?, result=?, error=?, seconds=?, place=?, driver=NULL WHERE key=? AND driver=?",
            (outcome.state, result, outcome.error, *ran, key, self.driver),
        )

    def record_lost_worker(self, key: str) -> int:
        """Return a cell to the state *waiting* after its worker died. Returns the number of workers it has lost."""
        with self._transaction():
            self._db.execute(
                "UPDATE cells SET state='waiting', driver=NULL, tries=tries+1 WHERE key=? AND driver=?",
                (key, self.driver),
            )
            return int(self._db.execute("SELECT tries FROM cells WHERE key=?", (key,)).fetchone()[0])

    def take_over(self) -> int:
        """Return the cells of dead drivers to the state *waiting*, and remove the locks. Returns the cells' number."""
        drivers = [name for (name,) in self._db.execute("SELECT DISTINCT driver FROM cells WHERE state='running'")]
        dead = [driver for driver in drivers if driver != self.driver and not self._is_alive(driver)]
        for path in (self.directory / "drivers").iterdir():
            with suppress(OSError):  # of the file of another user
                if path.name != self.driver:
                    self._is_alive(path.name)  # removes the lock of a dead one
        return sum(self._release(driver) for driver in dead)

    def _release(self, driver: str) -> int:
        released = self._write(
            "UPDATE cells SET state='waiting', driver=NULL WHERE state='running' AND driver=?", (driver,)
        )
        return released.rowcount

    def _is_alive(self, driver: str) -> bool:
        try:
            handle = os.open(self.directory / "drivers" / driver, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (self.directory / "drivers" / driver).unlink(missing_ok=True)  # locked: a new driver notices
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(handle)

    def requeue_failed(self, keys: Iterable[str]) -> None:
        """Return failed cells to the state *waiting*."""
        with self._transaction():
            self._db.executemany(
                "UPDATE cells SET state='waiting', tries=0, error=NULL WHERE key=? AND state='failed'",
                ((key,) for key in keys),
            )
