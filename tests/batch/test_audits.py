"""Batch audits: one job per digest, isolated failures, and no repeated work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np
import pytest
from safetensors.torch import save_file

from assay import formats
from assay.auditing.config import AuditConfig
from assay.batch import audits
from assay.batch.audits import AuditJob, AuditSettings, BatchStorage, run
from assay.bench.executors import Work
from assay.bench.job import Job, Outcome
from assay.bench.store import Store
from assay.core.options import ModelOptions
from assay.formats.untrained import untrained_model
from assay.graphs.export import to_onnx
from assay.io.object_store import ObjectStore

pytestmark = pytest.mark.slow


def write_data(path: Path, seed: int = 0) -> str:
    """Write 64 images with labels of 4 classes; the audits of a generated set take several times as long."""
    x = np.random.default_rng(seed).random((64, 3, 32, 32), np.float32)
    np.savez(path, x=x, y=np.arange(64) % 4)
    return str(path)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> AuditSettings:
    data = write_data(tmp_path_factory.mktemp("data") / "data.npz")
    return AuditSettings(data=data, variants=("full",), detectors="depth-scan")


@final
class InProcess:
    """Executor without other processes."""

    slots = 1

    def __init__(self) -> None:
        self.ran: list[str] = []
        self._done: list[tuple[str, Outcome | None]] = []

    def submit(self, job: Job, work: Work, blobs: str) -> None:
        self.ran.append(str(job))
        self._done.append((job.key, work(job, blobs)))

    def collect(self, seconds: float) -> list[tuple[str, Outcome | None]]:
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        pass


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "out")
    yield store
    store.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two models, a copy of the first, and a broken file."""
    folder = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        formats.save(untrained_model("resnet8-cifar", 4, seed=seed), folder / str(seed))
    first = folder / "0/model.safetensors"
    (folder / "copy.safetensors").write_bytes(first.read_bytes())
    (folder / "broken.safetensors").write_bytes(b"no model")
    return [
        str(first),
        str(folder / "1/model.safetensors"),
        *(str(folder / f"{n}.safetensors") for n in ("copy", "broken")),
    ]


def test_equal_models_are_audited_once_and_broken_file_fails_alone(
    models: list[str], store: Store, settings: AuditSettings
) -> None:
    here = InProcess()
    first, second, copy, broken = run(models, settings, BatchStorage(store), here)
    assert len(here.ran) == 3
    assert [answer.model for answer in (first, second, copy, broken)] == models
    assert first.verdict == second.verdict == copy.verdict == "inconclusive"
    assert (first.digest, first.record) == (copy.digest, copy.record)
    assert (broken.verdict, "broken.safetensors" in broken.reason) == ("failed", True)
    assert first.result["classes"] == 4
    assert first.record is not None
    report = store.directory / audits.REPORTS / first.record.key
    assert sorted(first.result["files"]) == sorted(
        str(path.relative_to(report)) for path in report.rglob("*") if path.is_file()
    )
    assert "report.html" in first.result["files"]

    again = InProcess()
    assert [a.verdict for a in run(models, settings, BatchStorage(store), again)] == [*["inconclusive"] * 3, "failed"]
    assert again.ran == [f"audit of {broken.model}"]  # a failed audit is repeated


def test_architecture_applies_to_bare_files_only(store: Store, settings: AuditSettings, tmp_path: Path) -> None:
    artifact = untrained_model("resnet8-cifar", 4)
    bare = tmp_path / "bare.safetensors"
    save_file(artifact.module.net.state_dict(), bare)
    to_onnx(artifact, tmp_path / "model.onnx")
    answers = run(
        [str(bare), str(tmp_path / "model.onnx")],
        replace(settings, arch="resnet8-cifar"),
        BatchStorage(store),
        InProcess(),
    )
    assert [answer.verdict for answer in answers] == ["inconclusive", "inconclusive"]


def test_settings_change_key(models: list[str], store: Store, settings: AuditSettings, tmp_path: Path) -> None:
    job = AuditJob(models[0], "digest", settings, "files")
    assert replace(job, model="elsewhere").key == job.key
    others = [
        replace(job, digest="other"),
        replace(job, files="other"),
        replace(job, settings=replace(settings, seed=1)),
        replace(job, settings=replace(settings, data=None)),
        replace(job, settings=replace(settings, quick=True)),
    ]
    assert len({other.key for other in (job, *others)}) == len(others) + 1
    assert replace(job, model="x").about()["digest"] == "digest"


@pytest.mark.parametrize("config", [AuditConfig(quick=True), AuditConfig(("full",), "graph", seed=3, budget=9.0)])
def test_settings_keep_the_configuration(config: AuditConfig) -> None:
    assert AuditSettings.of("signs:4", ModelOptions(), config).audit_config() == config


def test_changed_data_are_audited_again(
    models: list[str], store: Store, settings: AuditSettings, tmp_path: Path
) -> None:
    settings = replace(settings, data=write_data(tmp_path / "data.npz"))
    first, same, other = InProcess(), InProcess(), InProcess()
    assert run(models[:1], settings, BatchStorage(store), first)[0].verdict == "inconclusive"
    run(models[:1], settings, BatchStorage(store), same)
    write_data(tmp_path / "data.npz", seed=1)
    run(models[:1], settings, BatchStorage(store), other)
    assert [len(here.ran) for here in (first, same, other)] == [1, 0, 1]


def test_name_with_invalid_bytes_fails_alone(
    models: list[str], store: Store, settings: AuditSettings, tmp_path: Path
) -> None:
    odd = tmp_path / os.fsdecode(b"\xff\xfe.safetensors")
    odd.write_bytes(b"no model")
    broken, good = run([str(odd), models[0]], settings, BatchStorage(store), InProcess())
    assert (broken.verdict, good.verdict) == ("failed", "inconclusive")
    assert "udcff" in broken.reason


def test_models_of_earlier_run_are_skipped(
    models: list[str], store: Store, settings: AuditSettings, tmp_path: Path
) -> None:
    run(models[:1], settings, BatchStorage(store), InProcess())
    new, here = Store(tmp_path / "new"), InProcess()
    known, fresh_one = run(models[:2], replace(settings, seed=5), BatchStorage(new, earlier=store), here)
    new.close()
    assert here.ran == [f"audit of {models[1]}"]
    assert (known.before, fresh_one.before) == (True, False)
    assert known.verdict == "inconclusive"


def test_missing_model_is_a_failed_entry(models: list[str], store: Store, settings: AuditSettings) -> None:
    gone, there = run([models[0] + ".gone", models[0]], settings, BatchStorage(store), InProcess())
    assert (gone.verdict, gone.record) == ("failed", None)
    assert "cannot read" in gone.reason
    assert there.verdict == "inconclusive"


def test_crash_of_one_audit_fails_it_alone(
    models: list[str], store: Store, settings: AuditSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr("assay.auditing.run.run_audit", crash)
    (answer,) = run(models[:1], settings, BatchStorage(store), InProcess())
    assert (answer.verdict, answer.reason) == ("failed", "ZeroDivisionError: first line")


def test_reports_are_fetched_from_object_store(
    models: list[str], store: Store, settings: AuditSettings, tmp_path: Path
) -> None:
    answers = run(models[:1], settings, BatchStorage(store, "memory://reports"), InProcess())
    assert not (store.directory / audits.REPORTS).exists()
    audits.fetch_reports(answers, ObjectStore("memory://reports"), store.directory)
    record = answers[0].record
    assert record is not None
    assert (store.directory / audits.REPORTS / record.key / "report.html").read_text().startswith("<!doctype html>")
