"""A small real matrix from the command line, and a second run without work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from assay import data
from assay.bench import matrix
from assay.bench.full_audit import run_full_audit
from assay.bench.records import Record
from assay.bench.store import Store
from assay.cli import main
from assay.formats.untrained import untrained_model

pytestmark = pytest.mark.slow


SPEC = {
    "name": "tiny",
    "tasks": {"signs": {"data": "signs:3", "arch": "resnet8-cifar", "limit": 90}},
    "seeds": [0],
    "attacks": {
        "none": {"none": {"recipe": {"epochs": 1, "batch_size": 32}}},
        "corner": {"badnets": {"recipe": {"epochs": 1, "batch_size": 32}}},
    },
    "chains": {
        "scratch": ["attack"],
        "tuned": ["attack", {"fine-tune": {"recipe": {"epochs": 1, "batch_size": 32}}}],
    },
    "detectors": ["random-score", "latent-shift"],
    "mitigations": {"pruned": [{"prune-magnitude": {"rate": 0.5}}]},
    "valid": {"asr": 0.0, "drop": 1.0, "lift": 0.0, "accuracy": 0.0},
    "samples": 40,
}


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(SPEC))
    return path


def test_full_audit_is_a_detector() -> None:
    torch.manual_seed(0)
    artifact = untrained_model("resnet8-cifar", 5)
    task = data.load("signs:5", artifact.inputs, limit=60)
    finding = run_full_audit(artifact, task.split("calibration"), seed=0)
    assert finding.outcome.status == "ok"
    assert finding.score is not None
    assert finding.evidence.numbers["verdict"] == "inconclusive"  # the model is untrained
    assert 0 < float(finding.evidence.numbers["p_value"]) <= 1


def records_of(store: Path) -> dict[str, Record]:
    opened = Store(store)
    records = {record.key: record for record in opened.records()}
    opened.close()
    return records


def results_of(store: Path) -> dict[str, object]:
    """Return the results without times."""
    every = {key: dict(record.result or {}) for key, record in records_of(store).items()}
    return {
        key: {name: value for name, value in result.items() if "seconds" not in name} for key, result in every.items()
    }


def test_results_do_not_depend_on_number_of_processes_and_stages_run_once(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(["bench", "run", str(spec), "--store", str(one), "--workers", "1"]) == 0
    assert main(["bench", "run", str(spec), "--store", str(two), "--workers", "2"]) == 0
    assert results_of(one) == results_of(two)
    records = records_of(two)
    assert {record.state for record in records.values()} == {"done"}
    builds = [record for record in records.values() if record.kind == "build"]
    assert [record.result["stages_run"] for record in builds if record.result] == [1] * len(builds)
    measured = [record.result for record in records.values() if record.kind == "measure" and record.result]
    assert all(0 <= result["clean_accuracy"]["value"] <= 1 for result in measured)
    assert sum("control" in result for result in measured) == 2  # of the backdoored ones
    assert sum("planted_success" in result for result in measured) == 2
    capsys.readouterr()
    before = records
    assert main(["bench", "run", str(spec), "--store", str(two)]) == 0
    assert "0 to do" in capsys.readouterr().err
    assert records_of(two) == before
    assert main(["bench", "report", "--store", str(two), "--out", str(tmp_path / "page")]) == 0
    assert "16 done" in capsys.readouterr().err
    assert (tmp_path / "page" / "index.html").stat().st_size > 10_000
    found = matrix.entry_records(Store(two))
    assert {(entry.attack, entry.chain) for entry, _ in found} == {
        (attack, chain) for attack in ("none", "corner") for chain in ("scratch", "tuned")
    }


def test_dry_run_prints_plan_and_writes_nothing(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "run", str(spec), "--store", str(tmp_path / "store"), "--dry-run"]) == 0
    output = capsys.readouterr().err
    assert "20 cells, 0 done, 20 to do" in output
    assert not (tmp_path / "store").exists()


def without(key: str) -> str:
    return yaml.safe_dump({name: value for name, value in SPEC.items() if name != key})


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (without("seeds"), (), "expected the key 'seeds'"),
        (yaml.safe_dump(SPEC | {"detectors": ["patchscan"]}), (), "did you mean patch-scan"),
        (
            yaml.safe_dump(SPEC | {"tasks": {"t": {"data": "/no/such", "arch": "resnet8-cifar"}}}),
            (),
            "tasks.t: no such data: /no/such",
        ),
        (yaml.safe_dump(SPEC), ("--only", "zzz"), "no cell of this spec has a key like"),
        (yaml.safe_dump(SPEC), ("--ray", "127.0.0.1:1"), "nothing answers there"),
    ],
    ids=["missing", "unknown", "data", "only", "ray"],
)
def test_unusable_spec_is_one_line(
    text: str, arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(text)
    assert main(["bench", "run", str(spec), "--store", str(tmp_path / "store"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_failed_cells_are_printed_with_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "spec.yaml"
    diverging = {"none": {"recipe": {"epochs": 1, "lr": 1e30, "optimizer": "sgd"}}}
    spec.write_text(yaml.safe_dump(SPEC | {"attacks": {"none": diverging}, "mitigations": {}}))
    assert main(["bench", "run", str(spec), "--store", str(tmp_path / "store"), "--workers", "1"]) == 2
    output = capsys.readouterr().err
    assert "failed: " in output
    assert "what it needs" not in output


def test_missing_spec_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run: Callable[[list[str]], int] = main
    assert run(["bench", "run", str(tmp_path / "no.yaml")]) == 2
    assert "no.yaml: cannot be read: expected a file, got none" in capsys.readouterr().err
