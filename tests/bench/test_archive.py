"""Export and import of records, and the override of seeds, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from support.bench_specs import SMALL, result_of

from assay.bench import matrix
from assay.bench.archive import archived_records
from assay.bench.cells import entries
from assay.bench.job import Outcome
from assay.bench.records import open_existing
from assay.bench.spec_reader import parse_text
from assay.bench.store import Store
from assay.cli import main


def fill(directory: Path) -> None:
    """Make a store with one finished cell of SMALL."""
    text = yaml.safe_dump(SMALL)
    store = Store(directory)
    store.add_spec("small", text)
    entry = next(iter(entries(parse_text(text))))
    store.add([(entry.cell.key, entry.cell.kind, entry.cell.about())])
    store.claim(entry.cell.key)
    store.finish(entry.cell.key, Outcome("done", result_of(entry), seconds=1.25))
    store.close()


def test_exported_records_can_be_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "store")
    file, other = str(tmp_path / "small.jsonl"), str(tmp_path / "other")
    assert main(["bench", "export", file, "--store", str(tmp_path / "store")]) == 0
    assert "1 records" in capsys.readouterr().err
    assert main(["bench", "import", file, "--store", other]) == 0
    assert "1 records added" in capsys.readouterr().err
    before, after = open_existing(tmp_path / "store"), open_existing(Path(other))
    done = [[record for record in store.records() if record.state == "done"] for store in (before, after)]
    ((old,), (new,)) = done
    assert (new.key, new.about, new.seconds) == (old.key, old.about, 1.25)
    assert new.result is not None
    assert new.result["attack_success" if "attack_success" in new.result else "clean_accuracy"]["value"] > 0.7
    assert len(matrix.entry_records(after)) == len(archived_records(Path(file))) == 32
    assert main(["bench", "import", file, "--store", other]) == 0
    assert "0 records added" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "{", '{"spec": 3}', '{"spec": "name: a"}\n{"cell": 1}', "\udcff"])
def test_other_file_is_refused_in_one_line(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert main(["bench", "import", str(tmp_path / "file"), "--store", str(tmp_path / "store")]) == 2
    error = capsys.readouterr().err
    assert "expected a file of `assay bench export`" in error
    assert len(error.splitlines()) == 1


def test_cell_outside_of_spec_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row: dict[str, object] = {
        "cell": "0" * 64,
        "what": "a cell",
        "state": "done",
        "result": {},
        "error": None,
        "seconds": 1.0,
    }
    lines: list[dict[str, object]] = [{"spec": yaml.safe_dump(SMALL), "origin": {}, "missing": 0}, row]
    (tmp_path / "file").write_text("\n".join(map(json.dumps, lines)))
    assert main(["bench", "import", str(tmp_path / "file"), "--store", str(tmp_path / "store")]) == 2
    assert "has no cell of the record 'a cell'" in capsys.readouterr().err


def test_seeds_of_command_line_replace_those_of_spec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SMALL))
    counts = []
    for seeds in ((), ("--seeds", "7"), ("--seeds", "7,8,9")):
        arguments = ["bench", "run", str(tmp_path / "spec.yaml"), "--store", str(tmp_path / "store"), "--dry-run"]
        assert main([*arguments, *seeds]) == 0
        counts.append(int(capsys.readouterr().err.split(" cells")[0].split()[-1]))
    assert counts == [2 * counts[1], counts[1], 3 * counts[1]]
    assert main([*arguments, "--seeds", "a"]) == 2
    assert "--seeds: expected whole numbers" in capsys.readouterr().err
