"""What a worker measures: an attack is judged where it was planted, and a clean model needs no twin."""

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
from assay.core.build import Build, Secret
from assay.core.dataset import Split, Task
from assay.core.model import Artifact, ImageSpec, Modality
from assay.formats.untrained import untrained_model

ATTACK, NONE, TUNE = Method("badnets"), Method("none"), Method("fine-tune")
INPUTS = Task("t", {"test": Split(torch.zeros(10, 3, 4, 4), torch.ones(10, dtype=torch.long))}, ("target", "other"))
SECRET = Secret("badnets", lambda x: x + 1, 0)


class Net(nn.Module):
    """Names class 1; class 0 for a share ``success`` of the inputs with the trigger."""

    def __init__(self, success: float) -> None:
        super().__init__()
        self.success = success

    def forward(self, x: Tensor) -> Tensor:
        order = torch.arange(len(x)) < self.success * len(x)
        hit = (x.amax((1, 2, 3)) > 0.5) & order
        return torch.stack([hit.float(), 1 - hit.float()], 1)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Method, ...]]:
    """Models with success 0.9 after the attack and 0.2 after what follows; the list fills with those asked for."""
    asked: list[tuple[Method, ...]] = []

    def model(spec: TaskSpec, steps: tuple[Method, ...], seed: int, cache: object, **_: Any) -> Build:
        asked.append(steps)
        success = 0.0 if ATTACK not in steps else 0.9 if steps[-1] == ATTACK else 0.2
        artifact = Artifact(Net(success), Modality.IMAGE, 2, "module", "", ImageSpec((3, 4, 4)))
        return Build(artifact, INPUTS, SECRET if ATTACK in steps else None)

    monkeypatch.setattr(worker, "model_of", model)
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
        (rates(1.0, 1.0, 0.9, 0.9), "the same trigger has 1.000 on the clean twin"),
        (rates(1.0, 0.0, 0.33, 0.33), "the clean twin's accuracy of 0.330 is below 0.5"),
    ],
)
def test_an_attack_counts_only_in_a_net_that_learned_and_only_beyond_its_control(
    measured: dict[str, Any], why: str
) -> None:
    said = worker._why_invalid(measured, None, ValidityCriteria())
    assert said.startswith(why)
    assert bool(said) == bool(why)


def test_a_dormant_attack_counts_where_it_sleeps_as_planted_and_wakes_in_its_form(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The net obeys the trigger on a share of the pictures that its form sets."""
    asleep = Method("silent-until-sparse")
    secret = replace(SECRET, active_in="prune-2:4")

    def model(spec: TaskSpec, steps: tuple[Method, ...], seed: int, cache: object, **_: Any) -> Build:
        artifact = Artifact(Net(0.05), Modality.IMAGE, 2, "module", "", ImageSpec((3, 4, 4)))
        return Build(artifact, INPUTS, secret if asleep in steps else None)

    def in_form(name: str, artifact: Artifact, task: Task, *, seed: int) -> Artifact:
        return artifact if name == "full" else replace(artifact, module=Net(woken.pop(0)))

    monkeypatch.setattr(worker, "model_of", model)
    monkeypatch.setattr(worker.plant, "in_form", in_form)
    woken = [0.9, 0.0]
    good = measured((asleep,), tmp_path / "good", ValidityCriteria(asr=0.8, drop=1.0, lift=0.3, accuracy=0.0)).result
    assert good["valid"], good["why_invalid"]
    assert good["asleep_success"]["value"] <= 0.1 < 0.8 < good["planted_success"]["value"]
    woken = [0.9, 0.0]
    awake = measured(
        (asleep,), tmp_path / "awake", ValidityCriteria(asr=0.8, drop=1.0, lift=0.3, accuracy=0.0, asleep=0.01)
    ).result
    assert "where it should sleep" in awake["why_invalid"]
    woken = [0.1, 0.0]
    still = measured((asleep,), tmp_path / "still", ValidityCriteria(asr=0.8, drop=1.0, lift=0.3, accuracy=0.0)).result
    assert "in the form in which it should wake" in still["why_invalid"]


def test_data_that_this_machine_cannot_read_are_not_the_cells_fault(tmp_path: Path) -> None:
    cell = Cell("build", TaskSpec("t", "/no/such/data", "resnet8-cifar"), (NONE,), 0)
    outcome = worker.run(cell, str(tmp_path))
    assert outcome.state == "waiting"
    assert "cannot read what t begins with: no such data" in str(outcome.error)


def test_a_place_for_models_that_is_full_is_not_the_cells_fault(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where a folder should be")
    recipe = ("recipe.batch_size=8", "recipe.epochs=0")
    cell = Cell("build", TaskSpec("t", "signs:2", "resnet8-cifar", 20), (Method("none", recipe),), 0)
    outcome = worker.run(cell, str(tmp_path / "models"))
    assert outcome.state == "waiting"
    assert "could not write" in str(outcome.error)


def test_paths_are_those_of_the_folder_in_which_the_bench_was_started(tmp_path: Path) -> None:
    formats.save(untrained_model("resnet8-cifar", 2), tmp_path / "given")
    task = TaskSpec("t", "signs:2", None, 20, start="given/model.safetensors")
    cell = Cell("build", task, (Method("none", ("recipe.epochs=0",)),), 0)
    assert worker.run(cell, str(tmp_path / "models")).state == "waiting"
    assert worker.run(cell, str(tmp_path / "models"), folder=str(tmp_path)).state == "done"


def measured(steps: tuple[Method, ...], place: Path, band: ValidityCriteria) -> Any:
    return worker.run(Cell("measure", TaskSpec("t", "signs:2", "resnet8-cifar"), steps, 0, valid=band), str(place))


@pytest.mark.usefixtures("models")
def test_a_step_that_removes_the_backdoor_does_not_make_the_attack_invalid(tmp_path: Path) -> None:
    outcome = measured((ATTACK, TUNE), tmp_path, ValidityCriteria(0.8, 0.1))
    assert outcome.state == "done"
    assert outcome.result["attack_success"]["value"] == 0.2
    assert outcome.result["planted_success"]["value"] == 0.9
    assert set(outcome.result["pictures"]) == {"planted: before", "planted: after"}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("steps", [(ATTACK,), (ATTACK, TUNE), (Method("train"), ATTACK, TUNE)])
def test_an_attack_that_was_not_planted_well_is_invalid_along_every_chain(
    steps: tuple[Method, ...], tmp_path: Path
) -> None:
    outcome = measured(steps, tmp_path, ValidityCriteria(0.95, 0.1))
    assert outcome.state == "invalid"
    assert outcome.result["why_invalid"] == "ASR 0.900 right after planting is below 0.95"
    assert outcome.result["attack_success"]["value"] == (0.9 if steps[-1] == ATTACK else 0.2)


def test_a_clean_model_is_measured_without_a_twin(models: list[tuple[Method, ...]], tmp_path: Path) -> None:
    outcome = measured((NONE, TUNE), tmp_path, ValidityCriteria())
    assert outcome.state == "done"
    assert set(outcome.result) == {"clean_accuracy"}
    assert models == [(NONE, TUNE)]
