"""Measurements of a worker: attacks are checked right after planting, clean models have no control."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from assay import formats
from assay.bench import worker
from assay.bench.cells import Cell
from assay.bench.spec import Method, TaskSpec, ValidityCriteria
from assay.bench.validity import why_invalid
from assay.core.build import Build, Secret
from assay.core.dataset import Split, Task
from assay.core.model import Artifact, ImageSpec, Modality
from assay.formats.untrained import untrained_model

ATTACK, NONE, TUNE = Method("badnets"), Method("none"), Method("fine-tune")
INPUTS = Task("t", {"test": Split(torch.zeros(10, 3, 4, 4), torch.ones(10, dtype=torch.long))}, ("target", "other"))
SECRET = Secret("badnets", lambda x: x + 1, 0)


class Net(nn.Module):
    """Predicts class 1, and class 0 for a fraction ``success`` of the inputs with the trigger."""

    def __init__(self, success: float) -> None:
        super().__init__()
        self.success = success

    def forward(self, x: Tensor) -> Tensor:
        order = torch.arange(len(x)) < self.success * len(x)
        hit = (x.amax((1, 2, 3)) > 0.5) & order
        return torch.stack([hit.float(), 1 - hit.float()], 1)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Method, ...]]:
    """Models with success 0.9 after the attack and 0.2 after later steps; returns the list of built models."""
    asked: list[tuple[Method, ...]] = []

    def model(spec: TaskSpec, steps: tuple[Method, ...], seed: int, cache: object, **_: Any) -> Build:
        asked.append(steps)
        success = 0.0 if ATTACK not in steps else 0.9 if steps[-1] == ATTACK else 0.2
        artifact = Artifact(Net(success), Modality.IMAGE, 2, "module", "", ImageSpec((3, 4, 4)))
        return Build(artifact, INPUTS, SECRET if ATTACK in steps else None)

    monkeypatch.setattr(worker, "build_model", model)
    return asked


def rates(asr: float, control: float, after: float, before: float) -> dict[str, Any]:
    names = ("attack_success", "control", "clean_accuracy", "control_accuracy")
    return {name: {"value": value} for name, value in zip(names, (asr, control, after, before), strict=True)}


@pytest.mark.parametrize(
    ("measured", "why"),
    [
        (rates(0.9, 0.0, 0.85, 0.9), ""),
        (rates(0.7, 0.0, 0.85, 0.9), "ASR 0.700"),
        (rates(0.9, 0.0, 0.75, 0.9), "clean accuracy fell by 0.150"),
        (rates(1.0, 1.0, 0.9, 0.9), "the same trigger has ASR 1.000 on the clean control"),
        (rates(1.0, 0.0, 0.33, 0.33), "the clean control's accuracy of 0.330 is below 0.5"),
    ],
)
def test_why_invalid_names_the_missed_criterion(measured: dict[str, Any], why: str) -> None:
    missed = why_invalid(measured, None, ValidityCriteria())
    assert missed.startswith(why)
    assert bool(missed) == bool(why)


def test_compression_activated_attack_is_valid_if_inactive_as_planted_and_active_in_variant(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The compressed variant decides the success of the trigger."""
    attack = Method("silent-until-sparse")
    secret = replace(SECRET, active_in="prune-2:4")

    def model(spec: TaskSpec, steps: tuple[Method, ...], seed: int, cache: object, **_: Any) -> Build:
        artifact = Artifact(Net(0.05), Modality.IMAGE, 2, "module", "", ImageSpec((3, 4, 4)))
        return Build(artifact, INPUTS, secret if attack in steps else None)

    def make_variant(name: str, artifact: Artifact, task: Task, *, seed: int) -> Artifact:
        return artifact if name == "full" else replace(artifact, module=Net(success.pop(0)))

    monkeypatch.setattr(worker, "build_model", model)
    monkeypatch.setattr(worker.plant, "make_variant", make_variant)
    success = [0.9, 0.0]
    good = measured((attack,), tmp_path / "good", ValidityCriteria(asr=0.8, drop=1.0, lift=0.3, accuracy=0.0)).result
    assert good["valid"], good["why_invalid"]
    assert good["asleep_success"]["value"] <= 0.1 < 0.8 < good["planted_success"]["value"]
    success = [0.9, 0.0]
    active = measured(
        (attack,), tmp_path / "active", ValidityCriteria(asr=0.8, drop=1.0, lift=0.3, accuracy=0.0, inactive_asr=0.01)
    ).result
    assert "in the model as planted, before activation" in active["why_invalid"]
    success = [0.1, 0.0]
    inactive = measured(
        (attack,), tmp_path / "inactive", ValidityCriteria(asr=0.8, drop=1.0, lift=0.3, accuracy=0.0)
    ).result
    assert "in the variant that activates the backdoor" in inactive["why_invalid"]


def test_unreadable_data_leave_cell_waiting(tmp_path: Path) -> None:
    cell = Cell("build", TaskSpec("t", "/no/such/data", "resnet8-cifar"), (NONE,), 0)
    outcome = worker.run(cell, str(tmp_path))
    assert outcome.state == "waiting"
    assert "cannot read the input of t: no such data" in str(outcome.error)


def test_full_place_of_models_leaves_cell_waiting(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where a folder should be")
    recipe = ("recipe.batch_size=8", "recipe.epochs=0")
    cell = Cell("build", TaskSpec("t", "signs:2", "resnet8-cifar", 20), (Method("none", recipe),), 0)
    outcome = worker.run(cell, str(tmp_path / "models"))
    assert outcome.state == "waiting"
    assert "could not write" in str(outcome.error)


def test_paths_are_relative_to_folder_of_driver(tmp_path: Path) -> None:
    formats.save(untrained_model("resnet8-cifar", 2), tmp_path / "given")
    task = TaskSpec("t", "signs:2", None, 20, start="given/model.safetensors")
    cell = Cell("build", task, (Method("none", ("recipe.epochs=0",)),), 0)
    assert worker.run(cell, str(tmp_path / "models")).state == "waiting"
    assert worker.run(cell, str(tmp_path / "models"), folder=str(tmp_path)).state == "done"


def measured(steps: tuple[Method, ...], place: Path, band: ValidityCriteria) -> Any:
    return worker.run(Cell("measure", TaskSpec("t", "signs:2", "resnet8-cifar"), steps, 0, valid=band), str(place))


@pytest.mark.usefixtures("models")
def test_removed_backdoor_stays_a_valid_attack(tmp_path: Path) -> None:
    outcome = measured((ATTACK, TUNE), tmp_path, ValidityCriteria(0.8, 0.1))
    assert outcome.state == "done"
    assert outcome.result["attack_success"]["value"] == 0.2
    assert outcome.result["planted_success"]["value"] == 0.9
    assert set(outcome.result["pictures"]) == {"planted: before", "planted: after"}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("steps", [(ATTACK,), (ATTACK, TUNE), (Method("train"), ATTACK, TUNE)])
def test_badly_planted_attack_is_invalid_along_every_chain(steps: tuple[Method, ...], tmp_path: Path) -> None:
    outcome = measured(steps, tmp_path, ValidityCriteria(0.95, 0.1))
    assert outcome.state == "invalid"
    assert outcome.result["why_invalid"] == "ASR 0.900 right after planting is below 0.95"
    assert outcome.result["attack_success"]["value"] == (0.9 if steps[-1] == ATTACK else 0.2)


def test_clean_model_is_measured_without_control(models: list[tuple[Method, ...]], tmp_path: Path) -> None:
    outcome = measured((NONE, TUNE), tmp_path, ValidityCriteria())
    assert outcome.state == "done"
    assert set(outcome.result) == {"clean_accuracy"}
    assert models == [(NONE, TUNE)]
