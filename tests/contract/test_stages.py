"""Contract of all stages and mitigations: every class in the registry passes the same tests.

The tests build each class with its default settings, apart from ``SMALL``. A new mitigation needs no change here,
unless its defaults take long.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from assay import formats, mitigations, registry, stages
from assay.core.build import Build
from assay.core.model import digest_of_module
from assay.mitigations import CompressedTuning
from assay.mitigations.base import Mitigation
from assay.stages.base import Stage
from assay.stages.chain import Chain
from assay.stages.downstream import Downstream
from assay.stages.prune import PruneFilters
from assay.stages.quantize import QuantizeInt8
from assay.stages.save import save_model
from assay.stages.train import Recipe

pytestmark = pytest.mark.slow


QUICK = Recipe(epochs=0.5, batch_size=16, lr=0.01)

# Values of fields, by name, that keep the tests short.
SMALL: dict[str, Any] = {
    **{"recipe": QUICK, "samples": 16, "steps": 2, "copies": 2, "patterns": 2},
    **{"rounds": 1, "forget": 1, "restore": 1, "rate": 0.3, "arch": "resnet8-cifar"},
}

# tests/stages/test_downstream.py tests Downstream: it needs an encoder.
KINDS: dict[str, type[Stage]] = {
    **{name: kind for name, kind in registry.STAGES.items() if kind is not Downstream},
    "int8-simulated": QuantizeInt8,
}

Make = Callable[[Path], Stage]


def small(kind: type[Stage], **settings: Any) -> Make:
    """Return a function from a folder for exported files to a stage with short settings."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    own = {name: value for name, value in SMALL.items() if name in names} | settings
    return lambda folder: kind(**own, **({"directory": str(folder)} if "directory" in names else {}))


STAGES: dict[str, Make] = {
    **{name: small(kind) for name, kind in KINDS.items()},
    "compressed-tuning-int8": small(CompressedTuning, bits=8),
    "prune-filters-recalibrated": small(PruneFilters, recalibrate=True),
}
every_stage = pytest.mark.parametrize("make", STAGES.values(), ids=STAGES)


def concrete_stages(package: Any) -> set[type]:
    """Return the concrete stages that the modules of a package define."""
    modules = [
        importlib.import_module(info.name) for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    kinds = {kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)}
    return {
        kind
        for kind in kinds
        if kind.__module__.startswith(package.__name__) and issubclass(kind, Stage) and not inspect.isabstract(kind)
    }


def test_registry_has_every_stage_and_mitigation() -> None:
    assert concrete_stages(stages) | concrete_stages(mitigations) == {*registry.STAGES.values(), QuantizeInt8, Chain}
    assert {kind.__name__ for kind in concrete_stages(mitigations)} == set(mitigations.__all__)
    assert all(issubclass(kind, Mitigation) and kind.method == name for name, kind in registry.MITIGATIONS.items())


@every_stage
def test_stage_returns_a_new_module_and_keeps_the_old_one(make: Make, build: Build, tmp_path: Path) -> None:
    before = digest_of_module(build.artifact.module)
    result = make(tmp_path)(build, seed=0)
    assert digest_of_module(build.artifact.module) == before
    assert result.artifact.module is not build.artifact.module
    assert result.task is build.task
    assert result.history == (*build.history, make(tmp_path).name)
    assert result.artifact.num_classes == build.artifact.num_classes
    assert not build.artifact.module.training
    modes = [
        part.training for part in result.artifact.module.modules() if isinstance(part, nn.BatchNorm2d | nn.Dropout)
    ]
    assert not any(modes)


@every_stage
def test_stage_same_seed_gives_same_digest(make: Make, build: Build, tmp_path: Path) -> None:
    first, again = (make(tmp_path)(build, seed=1).artifact.digest for _ in range(2))
    assert first == again


@every_stage
def test_stage_keeps_the_planted_tag(make: Make, build: Build, tmp_path: Path) -> None:
    tagged = replace(build, artifact=replace(build.artifact, planted="by a test"))
    result = make(tmp_path)(tagged, seed=0)
    assert result.artifact.planted == "by a test"
    if result.artifact.differentiable and result.artifact.arch is not None:
        assert formats.load(save_model(result.artifact, tmp_path / "saved")).planted == "by a test"


@every_stage
def test_stage_without_need_for_data_runs_on_an_empty_task(make: Make, build: Build, tmp_path: Path) -> None:
    stage = make(tmp_path)
    if stage.needs_data:
        pytest.skip("needs data")
    empty = replace(build, task=replace(build.task, splits={}))
    assert stage(empty, seed=0).artifact.digest == stage(build, seed=0).artifact.digest


@every_stage
def test_stage_spec_is_json(make: Make, tmp_path: Path) -> None:
    stage = make(tmp_path)
    assert json.loads(json.dumps(stage.spec())) == json.loads(json.dumps(make(tmp_path).spec()))
    assert stage.name
