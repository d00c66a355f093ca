"""Stores: claims of several drivers, and clear errors for damaged or foreign stores."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from assay.bench.job import Outcome
from assay.bench.records import VERSION, open_existing
from assay.bench.store import Store
from assay.core.errors import UnusableInput


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """Return two drivers of one store."""
    stores = Store(tmp_path / "store"), Store(tmp_path / "store")
    yield stores
    for store in stores:
        store.close()


def test_cell_is_claimed_once(opened: tuple[Store, Store]) -> None:
    first, second = opened
    with first, second:
        first.add([("a", "toy", {"n": 1})])
        second.add([("a", "toy", {"n": 1})])
        assert [first.claim("a"), second.claim("a"), first.claim("a")] == [True, False, False]
        second.finish("a", Outcome("done", {"not": "mine"}))
        first.finish("a", Outcome("done", {"x": 1}, seconds=2.0))
        record = second.record("a")
        assert record is not None
        assert (record.state, record.result, record.seconds, record.about) == ("done", {"x": 1}, 2.0, {"n": 1})
        assert not second.claim("a")


def test_locks_of_dead_drivers_without_cells_are_removed(opened: tuple[Store, Store]) -> None:
    first, second = opened
    (first.directory / "drivers" / "dead").touch()
    with first, second:
        assert first.take_over() == 0
        assert {path.name for path in (first.directory / "drivers").iterdir()} == {first.driver, second.driver}
    assert list((first.directory / "drivers").iterdir()) == []


def test_driver_whose_lock_was_removed_at_its_start_makes_it_again(
    opened: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = opened
    real, calls = fcntl.flock, []

    def flock(handle: int, operation: int) -> None:
        calls.append(handle)
        if len(calls) == 1:  # another driver looks between the two steps of the start
            assert not second._is_alive(first.driver)
        real(handle, operation)

    first.add([("a", "toy", {})])
    monkeypatch.setattr(fcntl, "flock", flock)
    path = first.directory / "drivers" / first.driver
    with first, second:
        assert path.exists()
        assert first.claim("a")
        assert second.take_over() == 0


def test_cells_of_dead_drivers_are_released(opened: tuple[Store, Store]) -> None:
    first, second = opened
    second.add([("a", "toy", {}), ("b", "toy", {})])
    with second:
        with first:
            first.claim("a")
            assert second.take_over() == 0
            assert second.states()["a"] == "running"
        assert second.states()["a"] == "waiting"  # released on exit
        first.claim("b")  # no lock: like a killed driver
        assert second.take_over() == 1
        assert second.states()["b"] == "waiting"


def test_newer_store_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "records.sqlite") as db:
        db.execute("UPDATE meta SET value=?", (str(VERSION + 1),))
    with pytest.raises(UnusableInput, match=f"expected a store of version {VERSION} or older, got {VERSION + 1}"):
        Store(tmp_path)


def test_store_in_read_only_folder_is_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def refuse(place: object, **options: Any) -> sqlite3.Connection:
        if "uri" in options:  # like SQLite in a read-only folder; root can write everywhere
            raise sqlite3.OperationalError("attempt to write a readonly database")
        return connect(str(place), **options)

    store = Store(tmp_path)
    with store:
        store.add([("a", "toy", {"n": 1})])  # still in the write-ahead log
        monkeypatch.setattr(sqlite3, "connect", refuse)
        found = open_existing(tmp_path)
        assert [record.about for record in found.records()] == [{"n": 1}]
        found.close()
    store.close()


def test_full_disk_is_one_line_and_loses_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Store(tmp_path)) as first, first:
        first.add([("a", "toy", {})])
    connect = sqlite3.connect

    def connect_to_full_disk(place: object, **options: Any) -> sqlite3.Connection:
        db = connect(str(place), **options)
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count={pages}")  # SQLite reports a full disk beyond it
        return db

    monkeypatch.setattr(sqlite3, "connect", connect_to_full_disk)
    store = Store(tmp_path)
    with pytest.raises(UnusableInput, match=r"cannot be written: database or disk is full.*make room"), store:
        store.add([(f"b{n}", "toy", {"text": "x" * 1000}) for n in range(100)])
    assert list(store.states()) == ["a"]
    store.close()


def test_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "records.sqlite").write_bytes(b"not a database, but long enough to be looked at as one" * 10)
    with pytest.raises(UnusableInput, match="the store cannot be used"):
        Store(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UnusableInput, match="cannot be written"):
        Store(tmp_path / "file")


def test_mean_seconds_of_finished_cells(opened: tuple[Store, Store]) -> None:
    store, _ = opened
    with store:
        store.add([(name, "detect", {"method": "scan"}) for name in "ab"])
        for name, seconds in (("a", 1.0), ("b", 3.0)):
            store.claim(name)
            store.finish(name, Outcome("done", seconds=seconds))
    assert store.mean_seconds() == {("detect", "scan"): 2.0}


def test_record_without_fields_is_refused(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        store.add([("a", "cell", {"method": "badnets"})])
        store._db.execute("PRAGMA ignore_check_constraints=1")
        store._db.execute("UPDATE cells SET about=3")
    with closing(open_existing(tmp_path)) as records, pytest.raises(UnusableInput, match="the record a is damaged"):
        list(records.records())
