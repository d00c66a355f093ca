"""Matrices over a folder of given models: cells, command line, table rows and the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from assay import formats
from assay.bench import matrix
from assay.bench.cells import entries
from assay.bench.records import open_existing
from assay.bench.spec_reader import parse
from assay.bench.statistics import detector_rows
from assay.cli import main
from assay.formats.untrained import untrained_model

pytestmark = pytest.mark.slow


SPEC = {
    "name": "zoo",
    "tasks": {"signs": {"data": "signs:3", "limit": 60, "models": "zoo"}},
    "seeds": [0],
    "chains": {"given": ["attack"], "pruned": ["attack", {"prune-magnitude": {"rate": 0.3}}]},
    "detectors": ["random-score"],
    "samples": 20,
}
TRUTH = {
    **{f"clean-{n}/model.safetensors": {"attack": "none"} for n in range(2)},
    "planted/model.safetensors": {"attack": "some-paper", "target": 2},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with a folder of three models, their truth file and a specification."""
    monkeypatch.chdir(tmp_path)
    for seed, path in enumerate(TRUTH):
        formats.save(untrained_model("resnet8-cifar", 3, seed=seed), tmp_path / "zoo" / Path(path).parent)
    (tmp_path / "zoo" / "truth.json").write_text(json.dumps(TRUTH))
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    return tmp_path


def test_each_model_has_cells_under_the_attack_of_its_truth() -> None:
    task = {**SPEC["tasks"]["signs"], "truth": TRUTH}  # type: ignore[index]
    found = list(entries(parse({**SPEC, "tasks": {"signs": task}})))
    assert len(found) == 3 * 2 * 2  # models x chains x (measure, detect)
    assert {(entry.attack, entry.cell.is_clean) for entry in found} == {("none", True), ("some-paper", False)}
    assert {entry.cell.task.start for entry in found} == {f"zoo/{path}" for path in TRUTH}
    assert len({entry.cell.key for entry in found}) == len(found)


def test_matrix_of_given_models_runs_and_is_reported_without_the_folder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "run", "spec.yaml", "--store", "store", "--workers", "1"]) == 0, capsys.readouterr().err
    (folder / "zoo").rename(folder / "moved")
    store = open_existing(folder / "store")
    pairs = matrix.entry_records(store)
    store.close()
    assert {record.state for _, record in pairs} == {"done"}
    planted = [record.result for entry, record in pairs if entry.attack == "some-paper" and entry.cell.kind == "detect"]
    assert [(result["planted_target"], result["backdoored"]) for result in planted if result] == [(2, True)] * 2
    row = next(row for row in detector_rows(pairs) if row.chain == "given")
    assert (row.attack, row.backdoored, row.clean, row.clean_roots) == ("some-paper", 1, 4, 2)
    assert main(["bench", "report", "--store", "store", "--out", "page"]) == 0
    assert "given models" in (folder / "page" / "index.html").read_text()


def test_changed_given_model_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "run", "spec.yaml", "--store", "store", "--workers", "1"]
    assert main(arguments) == 0
    formats.save(untrained_model("resnet8-cifar", 3, seed=9), folder / "zoo" / "planted")
    assert main(arguments) == 2
    assert "made from other content" in capsys.readouterr().err


def test_missing_truth_file_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "zoo" / "truth.json").unlink()
    assert main(["bench", "run", "spec.yaml", "--store", "store"]) == 2
    assert "truth.json: cannot be read: expected a file, got none" in capsys.readouterr().err
