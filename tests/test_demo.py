"""The demo with tiny settings: all of it, in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.nulls import null_of_rows

from assay import formats
from assay.attacks import BadNets
from assay.demo import BADNETS, Demo, Settings, demo
from assay.stages.train import Recipe

NULL = null_of_rows({"full/depth-scan": 100.0 + i} for i in range(120))
TINY = Settings(
    classes=3,
    samples=120,
    training=Recipe(epochs=4, batch_size=32),
    attack=replace(BADNETS, target=1, recipe=Recipe(epochs=2, batch_size=32)),
    variants=("full",),
    null=NULL,
)


@pytest.fixture(scope="module")
def told() -> list[tuple[str, float]]:
    return []


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory, told: list[tuple[str, float]]) -> Demo:
    return demo(tmp_path_factory.mktemp("demo") / "out", TINY, progress=lambda what, share: told.append((what, share)))


def test_measures_every_form(tour: Demo) -> None:
    assert list(tour.measured) == ["clean", "backdoored", "backdoored, prune-50", "backdoored, int8"]
    assert all(measured.attack_success.total > 0 for measured in tour.measured.values())


def test_audits_both(tour: Demo) -> None:
    assert list(tour.audits) == ["clean", "backdoored"]
    assert tour.audits["clean"].model.planted is None
    assert tour.audits["backdoored"].model.planted is not None


def test_the_index_puts_both_pages_side_by_side(tour: Demo) -> None:
    text = tour.index.read_text()
    for name in tour.audits:
        page = Path(tour.index.parent / name / "report.html")
        assert page.exists()
        assert f'src="{name}/report.html"' in text
        assert f'href="{name}/report.html"' in text
    assert "<script" not in text
    assert "http:" not in text
    assert "https:" not in text


def test_the_models_can_be_audited_again(tour: Demo) -> None:
    folder = tour.index.parent
    assert formats.load(folder / "clean" / "model.safetensors").planted is None
    assert formats.load(folder / "backdoored" / "model.safetensors").planted is not None


def test_progress_only_goes_forward(tour: Demo, told: list[tuple[str, float]]) -> None:
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert 0.95 <= shares[-1] <= 1.0


def test_the_defaults_are_the_demo_that_is_promised() -> None:
    settings = Settings()
    assert settings.variants == ("full", "prune-50", "int8")
    assert isinstance(settings.attack, BadNets)
    assert settings.null is None
