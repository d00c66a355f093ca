"""Reports from a store: missing cells are shown, and an unusable store is one line."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
import yaml
from support.bench_specs import SMALL, changed, result_of

from assay.bench import matrix
from assay.bench.cells import entries, with_needs
from assay.bench.job import Outcome
from assay.bench.records import VERSION
from assay.bench.spec_reader import parse, parse_text
from assay.bench.store import Store
from assay.bench.unique_names import unique_entries
from assay.cli import main

FILES = {
    *("index.html", "records.csv", "records.json", "records.parquet"),
    *("attacks.csv", "detectors.csv", "mitigations.csv", "spec-small.yaml"),
}


def fill(directory: Path, document: dict[str, object], *, but: str = "") -> Store:
    """Return a store with every cell of the spec done, without the cells of kind ``but``."""
    store, text = Store(directory), yaml.safe_dump(document)
    store.add_spec(str(document["name"]), text)
    wanted = [entry for entry in entries(parse_text(text)) if entry.cell.kind != but]
    store.add((cell.key, cell.kind, cell.about()) for cell in with_needs([entry.cell for entry in wanted]).values())
    for entry in wanted:
        store.claim(entry.cell.key)
        store.finish(entry.cell.key, Outcome("done", result_of(entry), seconds=1.0))
    return store


def report(store: Path, out: Path, *more: str) -> int:
    return main(["bench", "report", "--store", str(store), "--out", str(out), *more])


def test_report_writes_page_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "store", SMALL).close()
    assert report(tmp_path / "store", tmp_path / "page") == 0
    assert {path.name for path in (tmp_path / "page").iterdir()} == FILES
    output = capsys.readouterr().err
    assert "32 done" in output
    assert str(tmp_path / "page" / "index.html") in output
    page = (tmp_path / "page" / "index.html").read_text()
    assert "small: leaderboard</title>" in page
    assert "assay bench run spec-small.yaml --store again --only" in page
    assert parse_text((tmp_path / "page" / "spec-small.yaml").read_text()) == parse(SMALL)


def test_cells_without_record_are_missing_on_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = fill(tmp_path / "store", SMALL, but="detect")
    found = matrix.entry_records(store)
    store.close()
    assert len(found) == len(list(entries(parse(SMALL)))) == 32
    assert {record.state for entry, record in found if entry.cell.kind == "detect"} == {"waiting"}
    assert report(tmp_path / "store", tmp_path / "page") == 0
    assert "16 done, 16 missing" in capsys.readouterr().err
    records = json.loads((tmp_path / "page" / "records.json").read_text())["records"]
    assert sum(record["state"] == "waiting" for record in records) == 16


def empty(place: Path) -> None:
    Store(place).close()


def newer(place: Path) -> None:
    fill(place, SMALL).close()
    with sqlite3.connect(place / "records.sqlite") as db:
        db.execute("UPDATE meta SET value=?", (str(VERSION + 1),))


def foreign(place: Path) -> None:
    place.mkdir()
    with sqlite3.connect(place / "records.sqlite") as db:
        db.execute("CREATE TABLE songs (name TEXT)")


def from_other_versions(place: Path) -> None:
    fill(place, SMALL).close()
    with sqlite3.connect(place / "records.sqlite") as db:
        db.execute("UPDATE cells SET key='other ' || key")


def with_unknown_detector(place: Path) -> None:
    store = fill(place, SMALL)
    store.add_spec("next", yaml.safe_dump(changed("detectors", ["detector-of-tomorrow"])))
    store.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: None, "make one with `assay bench run`"),
        (empty, "the store is empty"),
        (newer, f"or older, got {VERSION + 1}"),
        (foreign, "was not made by assay bench"),
        (from_other_versions, "there is no record of the spec 'small' by assay"),
        (with_unknown_detector, "cannot read the spec 'next'"),
    ],
)
def test_unusable_store_is_one_line(make, message, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "store")
    before = sorted(tmp_path.iterdir())
    assert report(tmp_path / "store", tmp_path / "page") == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_report_of_one_of_several_specs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "store", SMALL).close()
    fill(tmp_path / "store", {**SMALL, "name": "other", "seeds": [5]}).close()
    assert report(tmp_path / "store", tmp_path / "page", "--spec", "other") == 0
    assert "16 done" in capsys.readouterr().err
    assert report(tmp_path / "store", tmp_path / "page", "--spec", "othr") == 2
    assert "did you mean other" in capsys.readouterr().err


def named(document: dict[str, object]) -> tuple[set[str], set[str], set[str], set[str]]:
    """Return the unique names of tasks, attacks, chains and mitigations of SMALL and ``document`` in one store."""
    every = list(unique_entries([parse(SMALL), parse({**document, "name": "second"})]))
    repairs = {entry.cell.method for entry in every if entry.cell.kind == "mitigate"}
    return {e.task for e in every}, {e.attack for e in every}, {e.chain for e in every}, repairs


def test_names_with_one_meaning_stay() -> None:
    assert named({**SMALL, "seeds": [8]}) == ({"signs"}, {"none", "corner"}, {"scratch", "shipped"}, {"tuned"})
    assert len(list(unique_entries([parse(SMALL), parse({**SMALL, "name": "second"})]))) == 32


@pytest.mark.parametrize(
    ("path", "value", "place", "expected"),
    [
        ("tasks/signs/limit", 600, 0, {"signs (small)", "signs (second)"}),
        ("attacks/none", {"none": {"recipe": {"epochs": 9}}}, 1, {"none (small)", "none (second)", "corner"}),
        ("chains/shipped", ["train", "attack"], 2, {"scratch", "shipped (small)", "shipped (second)"}),
        ("mitigations/tuned", ["fine-tune", "bf16"], 3, {"tuned (small)", "tuned (second)"}),
        (
            *("valid", {"asr": 0.5}, 2),
            {"scratch (small)", "scratch (second)", "shipped (small)", "shipped (second)"},
        ),
    ],
)
def test_names_with_two_meanings_get_name_of_spec(path, value, place, expected) -> None:
    assert named(changed(path, value))[place] == expected
