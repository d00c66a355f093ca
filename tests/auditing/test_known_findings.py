"""Stored findings: an audit takes those of the same circumstances, and runs the rest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.nulls import null_of
from support.toys import SHAPE, toy

from assay import report
from assay.auditing import known_findings
from assay.auditing.api import audit
from assay.auditing.config import AuditConfig, FindingsFolder
from assay.auditing.run import Callbacks, run_audit
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.finding import Finding, Outcome
from assay.core.model import Artifact
from assay.core.options import ModelOptions
from assay.core.progress import Progress
from assay.core.result import Audit
from assay.detectors import DepthScan, FourierKeys, LatentShift, MaxMargin, NeuralCleanse
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.requirement import Requirement

VARIANTS = ("full", "int8")
DETECTORS = (LatentShift(), DepthScan(), MaxMargin(steps=5))
TESTS = sorted(
    [f"full/{detector.name}" for detector in DETECTORS] + [f"int8/{d.name}" for d in DETECTORS if d.on_variants]
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def audited(folder: Path | None, *, target: int | None = 2, **options: Any) -> Audit:
    net, x, y = toy(4, target)
    given = {"null": null_of(), "detectors": DETECTORS, "variant_names": VARIANTS, "data": (x, y), **options}
    return audit(net, shape=SHAPE, findings=folder, **given)


def assert_same(one: Audit, other: Audit) -> None:
    """Check that two audits agree in all but their time and their notes."""
    first, second = (report.to_json(replace(result, seconds=0.0, notes=(), deployment=None)) for result in (one, other))
    for document in (first, second):
        for finding in document["findings"]:
            finding["seconds"] = 0.0
    assert first == second
    for a, b in zip(one.findings, other.findings, strict=True):
        for name in ("before", "after", "mask", "trigger"):
            assert np.array_equal(getattr(a.evidence, name), getattr(b.evidence, name))


def notes_about_findings(result: Audit) -> list[str]:
    return [note for note in result.notes if "findings" in note or "tests" in note or "again" in note]


def test_second_audit_runs_no_test_and_has_the_same_result(tmp_path: Path, runs: list[str]) -> None:
    folder = tmp_path / "findings"
    first = audited(folder)
    assert len(runs) == len(first.findings) == len(TESTS)
    runs.clear()
    second = audited(folder)
    assert runs == []
    assert_same(first, second)
    (note,) = notes_about_findings(second)
    assert note.startswith(f"{len(TESTS)} of {len(TESTS)} tests are taken from the audit of 2")
    assert str(folder) in note
    assert notes_about_findings(first) == []


def test_stored_trigger_is_measured_in_the_second_audit(tmp_path: Path) -> None:
    options: dict[str, Any] = {"detectors": (NeuralCleanse(),), "variant_names": ("full",)}
    first, second = (audited(tmp_path, **options) for _ in range(2))
    assert "1 of 1 tests are taken" in " ".join(second.notes)
    assert first.trigger_sweep
    assert_same(first, second)


def test_audit_goes_on_after_the_tests_of_an_earlier_one(tmp_path: Path, runs: list[str]) -> None:
    audited(tmp_path, detectors=DETECTORS[:2])
    result = audited(tmp_path)
    assert sorted(runs) == sorted(test.partition("/")[2] for test in TESTS)
    assert_same(result, audited(None))


def test_without_a_folder_nothing_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert notes_about_findings(audited(None)) == []
    assert list(tmp_path.iterdir()) == []


def other_data() -> Any:
    _, x, y = toy(4, 2)
    return {"data": (x[1:], y[1:])}


def no_labels() -> Any:
    return {"data": (toy(4, 2)[1], None)}


CHANGES = {
    "model": (lambda: {"target": 3}, "another model"),
    "data": (other_data, "another data"),
    "labels": (no_labels, "another data"),
    "seed": (lambda: {"seed": 1}, "another seed"),
    "options": (lambda: {"mean": (0.0,) * 3, "std": (1.0,) * 3}, "another"),
    "detector": (
        lambda: {"detectors": (*DETECTORS[:2], MaxMargin(steps=6))},
        "1 of another detector setting",
    ),
}


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_findings_of_other_circumstances_are_not_taken(
    tmp_path: Path, runs: list[str], change: Any, words: str
) -> None:
    audited(tmp_path)
    runs.clear()
    result = audited(tmp_path, **change())
    assert len(runs) == (1 if words.startswith("1") else len(result.findings))
    notes = " ".join(notes_about_findings(result))
    assert "are not taken" in notes
    assert words in notes
    runs.clear()
    audited(tmp_path, **change())  # the new findings are stored in their place
    assert runs == []


@pytest.mark.parametrize("name", ["version of assay", "version of torch", "number format"])
def test_findings_of_another_version_are_not_taken(
    tmp_path: Path, runs: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    audited(tmp_path)
    if name == "version of assay":
        monkeypatch.setattr(known_findings, "_code_digest", lambda: "other code")
    elif name == "version of torch":
        monkeypatch.setattr(torch, "__version__", "9.9")
    else:
        monkeypatch.setattr(known_findings, "fast_dtype", lambda device: torch.float64)
    runs.clear()
    result = audited(tmp_path)
    assert len(runs) == len(TESTS)
    assert f"{len(TESTS)} of another {name}" in " ".join(result.notes)


def test_options_of_a_loaded_model_count(tmp_path: Path) -> None:
    net, x, y = toy(4, 2)

    def notes(options: ModelOptions) -> str:
        place = FindingsFolder(tmp_path, options)
        config = AuditConfig(("full",), (LatentShift(),), null=null_of(), findings=place)
        return " ".join(run_audit(net, (x, y), ModelOptions(shape=SHAPE), config).notes)

    notes(ModelOptions(pooling="cls"))
    assert "1 of 1 tests are taken" in notes(ModelOptions(pooling="cls"))
    assert "1 of another way of loading" in notes(ModelOptions(pooling="mean"))


def test_fresh_audit_runs_all_tests_again(tmp_path: Path, runs: list[str]) -> None:
    net, x, y = toy(4, 2)
    audited(tmp_path)
    runs.clear()
    config = AuditConfig(VARIANTS, DETECTORS, null=null_of(), findings=FindingsFolder(tmp_path, fresh=True))
    result = run_audit(net, (x, y), ModelOptions(shape=SHAPE), config)
    assert len(runs) == len(TESTS)
    assert notes_about_findings(result) == []


def test_interrupted_audit_goes_on(tmp_path: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any, **options: Any) -> Finding:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MaxMargin, "run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            audited(tmp_path)
    finished = list(runs[:-1])
    assert len(finished) >= 1
    runs.clear()
    result = audited(tmp_path)
    assert sorted(finished + runs) == sorted(test.partition("/")[2] for test in TESTS)
    assert_same(result, audited(None))


def test_damaged_file_has_a_note_and_its_test_runs_again(tmp_path: Path, runs: list[str]) -> None:
    first = audited(tmp_path)
    path = tmp_path / "full-latent-shift.json"
    document = json.loads(path.read_text())
    document["finding"]["score"] = -100.0
    path.write_text(json.dumps(document))
    runs.clear()
    result = audited(tmp_path)
    assert runs == ["latent-shift"]
    assert_same(first, result)
    notes = " ".join(notes_about_findings(result))
    assert str(path) in notes
    assert f"{len(TESTS) - 1} of {len(TESTS)} tests are taken" in notes


def test_findings_out_of_time_or_failed_are_not_stored(
    tmp_path: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    audited(tmp_path, budget=1e-9)
    assert not any(tmp_path.glob("*.json"))

    def fail(*args: Any, **options: Any) -> Finding:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(LatentShift, "run", fail)
        audited(tmp_path)
    runs.clear()
    audited(tmp_path)
    assert runs == ["latent-shift"]


def test_files_of_another_user_have_one_note(tmp_path: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    audited(tmp_path)
    runs.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    (note,) = notes_about_findings(audited(tmp_path))
    assert "another user" in note
    assert f"({len(TESTS)} files in all)" in note
    assert len(runs) == len(TESTS)


def test_with_a_budget_only_scores_are_stored(tmp_path: Path, runs: list[str]) -> None:
    """A check without scores may be shorter within a budget, and a test may abstain for lack of time."""
    options: dict[str, Any] = {"detectors": (FourierKeys(), LatentShift()), "variant_names": ("full",)}
    audited(tmp_path, budget=1000.0, **options)
    assert [path.name for path in tmp_path.glob("*.json")] == ["full-latent-shift.json"]
    audited(tmp_path, **options)
    assert (tmp_path / "full-fourier-key.json").exists()


class Own(Detector):
    """Detector outside of the package."""

    name = "own"
    title = "for a test"
    needs = Requirement.NONE

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        return Finding(self.name, Outcome.SCORED, score=0.0)


def test_findings_of_other_detectors_are_not_stored(tmp_path: Path, runs: list[str]) -> None:
    for _ in range(2):
        audited(tmp_path, detectors=(Own(),), variant_names=("full",))
    assert runs == ["own"] * 2
    assert not any(tmp_path.glob("*.json"))


def test_full_disk_ends_the_storing_and_not_the_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise UnusableInput("no space left")

    monkeypatch.setattr(known_findings, "write_finding", refuse)
    result = audited(tmp_path)
    assert result.verdict == "backdoored"
    assert [note for note in result.notes if "no space left" in note] == [
        f"the findings cannot be stored in {tmp_path}: no space left"
    ]


def test_notes_are_told_before_the_first_test(tmp_path: Path) -> None:
    net, x, y = toy(4, 2)
    config = AuditConfig(("full",), DETECTORS, null=null_of(), findings=FindingsFolder(tmp_path))
    events: list[str] = []
    callbacks = Callbacks(lambda step, fraction: events.append(step), on_notes=events.extend)
    for _ in range(2):
        events.clear()
        run_audit(net, (x, y), ModelOptions(shape=SHAPE), config, callbacks=callbacks)
    assert events[0].startswith("3 of 3 tests are taken")
