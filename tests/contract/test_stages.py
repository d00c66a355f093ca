"""One list of promises, and every stage of ``assay.stages`` keeps all of them."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from assay import formats, mitigations, stages
from assay.core.build import Build
from assay.core.model import digest_of_module
from assay.mitigations import (
    CompressedTuning,
    Efrap,
    LowBitRandomization,
    RandomRounding,
    Smoothing,
    SuperFineTuning,
    TriggerUnlearning,
    UniversalTraining,
)
from assay.stages.base import Stage
from assay.stages.distil import Distil
from assay.stages.downstream import Downstream
from assay.stages.export import ExportInt8, ExportOnnx, save_model
from assay.stages.persist import Persist
from assay.stages.prune import PruneFilters, PruneMagnitude, PruneTwoFour
from assay.stages.quantize import Bf16, QuantizeInt8, QuantizeWeights
from assay.stages.train import FineTune, LinearProbe, Recipe, Train

QUICK = Recipe(epochs=0.5, batch_size=16, lr=0.01)
Make = Callable[[Path], Stage]

STAGES: dict[str, Make] = {
    "train": lambda _: Train(recipe=QUICK),
    "fine-tune": lambda _: FineTune(recipe=QUICK),
    "linear-probe": lambda _: LinearProbe(recipe=QUICK),
    "prune-magnitude": lambda _: PruneMagnitude(rate=0.4),
    "prune-filters": lambda _: PruneFilters(rate=0.2, recalibrate=True),
    "prune-2:4": lambda _: PruneTwoFour(),
    "bf16": lambda _: Bf16(),
    "weights": lambda _: QuantizeWeights(bits=3),
    "int8": lambda _: QuantizeInt8(samples=16),
    "compressed-tuning": lambda _: CompressedTuning(recipe=QUICK),
    "compressed-tuning-int8": lambda _: CompressedTuning(bits=8, recipe=QUICK),
    "efrap": lambda _: Efrap(steps=2, samples=16),
    "persist": lambda _: Persist(),
    "distil": lambda _: Distil(arch="resnet8-cifar", recipe=QUICK),
    "low-bit-randomization": lambda _: LowBitRandomization(),
    "smoothing": lambda _: Smoothing(copies=2),
    "random-rounding": lambda _: RandomRounding(samples=16),
    "super-fine-tuning": lambda _: SuperFineTuning(recipe=QUICK, forget=1, restore=1),
    "trigger-unlearning": lambda _: TriggerUnlearning(rounds=1, recipe=QUICK),
    "universal-training": lambda _: UniversalTraining(patterns=2, recipe=QUICK),
    "onnx": lambda folder: ExportOnnx(directory=str(folder)),
    "onnx-int8": lambda folder: ExportInt8(directory=str(folder), samples=16),
}
every_stage = pytest.mark.parametrize("make", STAGES.values(), ids=STAGES)


def test_the_list_is_whole(tmp_path: Path) -> None:
    listed = {type(make(tmp_path)) for make in STAGES.values()} | {Downstream}  # which has a test file of its own
    assert {kind for kind in _stage_classes() if not inspect.isabstract(kind)} == listed


def _stage_classes() -> set[type]:
    found = set()
    rooms = ((stages.__path__, "assay.stages."), (mitigations.__path__, "assay.mitigations."))
    for info in (info for room in rooms for info in pkgutil.iter_modules(*room)):
        for _, kind in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
            if kind.__module__ == info.name and dataclasses.is_dataclass(kind) and "spec" in dir(kind):
                found.add(kind)
    return found


@every_stage
def test_returns_a_new_net_and_leaves_the_old_one(make: Make, build: Build, tmp_path: Path) -> None:
    before = digest_of_module(build.artifact.module)
    made = make(tmp_path)(build, seed=0)
    assert digest_of_module(build.artifact.module) == before
    assert made.artifact.module is not build.artifact.module
    assert made.task is build.task
    assert made.history == (*build.history, make(tmp_path).name)
    assert made.artifact.num_classes == build.artifact.num_classes
    assert not build.artifact.module.training
    modes = [part.training for part in made.artifact.module.modules() if isinstance(part, nn.BatchNorm2d | nn.Dropout)]
    assert not any(modes)


@every_stage
def test_same_seed_same_digest(make: Make, build: Build, tmp_path: Path) -> None:
    first, again = (make(tmp_path)(build, seed=1).artifact.digest for _ in range(2))
    assert first == again


@every_stage
def test_keeps_mark_and_secret(make: Make, build: Build, tmp_path: Path) -> None:
    marked = replace(build, artifact=replace(build.artifact, planted="by a test"))
    made = make(tmp_path)(marked, seed=0)
    assert made.artifact.planted == "by a test"
    if made.artifact.differentiable and made.artifact.arch is not None:
        assert formats.load(save_model(made.artifact, tmp_path / "saved")).planted == "by a test"


@every_stage
def test_the_spec_is_json(make: Make, tmp_path: Path) -> None:
    stage = make(tmp_path)
    assert json.loads(json.dumps(stage.spec())) == json.loads(json.dumps(make(tmp_path).spec()))
    assert stage.name
