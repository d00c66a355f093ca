"""The whole demo with a tiny configuration, in seconds."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.nulls import null_of_rows

from assay import demo as demo_module
from assay import formats
from assay.attacks import BadNets
from assay.core.errors import AssayError, UnusableInput
from assay.core.result import Audit
from assay.demo import BADNETS, Demo, DemoConfig, demo
from assay.detectors import DepthScan, LatentShift, NoiseScan
from assay.report import to_json
from assay.stages.train import Recipe

pytestmark = pytest.mark.slow


NULL = null_of_rows({"full/depth-scan": 100.0 + i} for i in range(120))
TINY = DemoConfig(
    classes=3,
    samples=60,
    training=Recipe(epochs=2, batch_size=32),
    attack=replace(BADNETS, target=1, recipe=Recipe(epochs=1, batch_size=32)),
    variants=("full",),
    detectors=(DepthScan(), NoiseScan(), LatentShift()),
    null=NULL,
    processes=2,
)


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, float]]:
    """Return the progress of ``result``."""
    return []


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, float]]) -> Demo:
    """Return the result of a demo with two processes."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    return demo(folder, TINY, progress=lambda name, fraction: steps.append((name, fraction)))


def test_demo_measures_every_model(result: Demo) -> None:
    assert list(result.measured) == ["clean", "backdoored", "backdoored, prune-50", "backdoored, int8"]
    assert all(measured.attack_success.total > 0 for measured in result.measured.values())


def test_demo_audits_both_models(result: Demo) -> None:
    assert list(result.audits) == ["clean", "backdoored"]
    assert result.audits["clean"].model.planted is None
    assert result.audits["backdoored"].model.planted is not None


def test_index_shows_both_pages(result: Demo) -> None:
    text = result.index.read_text()
    for name in result.audits:
        page = Path(result.index.parent / name / "report.html")
        assert page.exists()
        assert f'src="{name}/report.html"' in text
        assert f'href="{name}/report.html"' in text
    assert "<script" not in text
    assert "http:" not in text
    assert "https:" not in text


def test_written_models_can_be_loaded(result: Demo) -> None:
    folder = result.index.parent
    assert formats.load(folder / "clean" / "model.safetensors").planted is None
    assert formats.load(folder / "backdoored" / "model.safetensors").planted is not None


def test_progress_never_decreases(result: Demo, steps: list[tuple[str, float]]) -> None:
    fractions = [fraction for _, fraction in steps]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.0
    assert fractions[-1] == pytest.approx(1.0, abs=0.05)
    assert any("clean model, " in name for name, _ in steps)
    assert any("backdoored model, " in name for name, _ in steps)


def content(audit: Audit) -> dict[str, Any]:
    """Return the JSON of an audit without the durations."""
    document = to_json(audit)
    for part in (document, document["deployment"], *document["findings"]):
        del part["seconds"]
    return document


def test_one_process_gives_the_same_results(result: Demo, tmp_path: Path) -> None:
    other = demo(tmp_path / "out", replace(TINY, processes=1))
    assert {name: content(audit) for name, audit in other.audits.items()} == {
        name: content(audit) for name, audit in result.audits.items()
    }
    assert other.measured == result.measured


def test_one_core_uses_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert demo_module.available_cores() == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_error_ends_the_processes_and_writes_nothing(error: type[BaseException], tmp_path: Path) -> None:
    def fail(name: str, fraction: float) -> None:
        if name.startswith("auditing"):
            raise error

    with pytest.raises(error):
        demo(tmp_path / "out", TINY, progress=fail)
    assert multiprocessing.active_children() == []
    assert not (tmp_path / "out").exists()


def test_error_in_a_process_is_raised_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match="no-such-variant"):
        demo(tmp_path / "out", replace(TINY, variants=("no-such-variant",)))
    assert multiprocessing.active_children() == []
    assert not (tmp_path / "out").exists()


def test_lost_process_is_an_error(tmp_path: Path) -> None:
    def kill(name: str, fraction: float) -> None:
        if name.startswith("auditing"):
            for process in multiprocessing.active_children():
                process.kill()

    with pytest.raises(AssayError, match="ended early"):
        demo(tmp_path / "out", TINY, progress=kill)


def test_default_configuration_is_the_documented_demo() -> None:
    config = DemoConfig()
    assert config.variants == ("full", "prune-50", "int8")
    assert isinstance(config.attack, BadNets)
    assert config.null is None
    assert config.detectors is None
