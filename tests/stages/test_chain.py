"""Tests of chains and of the build cache."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from support.tiny import tiny_build

from assay.core.build import Build, Secret
from assay.core.model import PLANTED_KEY
from assay.io.object_store import ObjectStore
from assay.stages.base import Planter, Stage
from assay.stages.cache import Cache
from assay.stages.chain import Chain
from assay.stages.prune import PruneFilters, PruneMagnitude, PruneTwoFour
from assay.stages.quantize import Bf16, QuantizeInt8
from assay.triggers import Patch


class Calls:
    """Names of the stages that ran; its copy is constant, so the spec of a stage does not depend on it."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> str:
        return "calls"


@dataclass(frozen=True, kw_only=True)
class Noise(Stage):
    """Adds seeded noise to all weights, and records that it ran."""

    calls: Calls
    name: str = "noise"

    def __call__(self, build: Build, *, seed: int) -> Build:
        self.calls.names.append(self.name)
        return build.then(self.name, _noisy(build, seed))


@dataclass(frozen=True, kw_only=True)
class Plant(Noise):
    """Noise with a secret, like an attack."""

    name: str = "plant"

    def secret(self) -> Secret:
        return Secret("noise", Patch(), target=1)

    def __call__(self, build: Build, *, seed: int) -> Build:
        self.calls.names.append(self.name)
        return build.then(self.name, replace(_noisy(build, seed), planted="noise"), self.secret())


def _noisy(build: Build, seed: int) -> Any:
    stage = Bf16()(build, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in stage.artifact.module.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.01
    return stage.artifact.with_module(stage.artifact.module)


STAGES: list[Stage] = [
    PruneMagnitude(rate=0.3),
    PruneFilters(rate=0.25, recalibrate=True),
    PruneTwoFour(),
    Bf16(),
    Noise(calls=Calls()),
]


@settings(max_examples=15, deadline=None)
@given(stages=st.lists(st.sampled_from(STAGES), max_size=4), seed=st.integers(0, 2**31))
def test_chain_same_seed_gives_same_digest_with_and_without_cache(
    stages: list[Stage], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("cache")
    plain = Chain(tuple(stages))(tiny_build(), seed=seed)
    kept = [Chain(tuple(stages), cache=Cache(ObjectStore(str(directory))))(tiny_build(), seed=seed) for _ in range(2)]
    for build in kept:
        assert build.artifact.digest == plain.artifact.digest
        assert build.history == plain.history == tuple(stage.name for stage in stages)


def test_cache_second_run_reads_all_builds(tmp_path: Path) -> None:
    calls = Calls()
    chain = Chain(
        (Plant(calls=calls), PruneMagnitude(rate=0.2), Noise(calls=calls)), cache=Cache(ObjectStore(str(tmp_path)))
    )
    first = chain(tiny_build(), seed=1)
    second = chain(tiny_build(), seed=1)
    assert calls.names == ["plant", "noise"]
    assert second.artifact.digest == first.artifact.digest
    assert second.artifact.planted == "noise"
    assert second.secret == first.secret == Secret("noise", Patch(), target=1)
    x = torch.rand(4, 3, 8, 8)
    assert torch.equal(first.artifact.module(x), second.artifact.module(x))


def test_cache_other_seed_stage_model_or_task_runs_again(tmp_path: Path) -> None:
    calls = Calls()
    cache = Cache(ObjectStore(str(tmp_path)))
    build = tiny_build()
    Chain((Noise(calls=calls),), cache=cache)(build, seed=0)
    Chain((Noise(calls=calls),), cache=cache)(build, seed=1)
    Chain((Noise(calls=calls, name="other"),), cache=cache)(build, seed=0)
    Chain((Noise(calls=calls),), cache=cache)(tiny_build(seed=5), seed=0)
    task = replace(build.task, name="another")
    Chain((Noise(calls=calls),), cache=cache)(replace(build, task=task), seed=0)
    mean = build.artifact.module.get_buffer("mean") + 0.1
    moved = tiny_build()
    moved.artifact.module.get_buffer("mean").copy_(mean)  # not in the state dict, but part of the computation
    Chain((Noise(calls=calls),), cache=cache)(moved, seed=0)
    assert len(calls.names) == 6


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_cache_damaged_file_is_replaced(tmp_path: Path, damage: str) -> None:
    calls = Calls()
    chain = Chain((Noise(calls=calls),), cache=Cache(ObjectStore(str(tmp_path))))
    first = chain(tiny_build(), seed=0)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    flipped = content[:-100] + bytes(byte ^ 0x11 for byte in content[-100:])
    file.write_bytes({"truncated": content[:-50], "flipped": flipped, "empty": b""}[damage])
    assert chain(tiny_build(), seed=0).artifact.digest == first.artifact.digest
    assert chain(tiny_build(), seed=0).artifact.digest == first.artifact.digest
    assert calls.names == ["noise", "noise"]


def test_json_once_computes_once_and_again_after_damage(tmp_path: Path) -> None:
    cache, calls = Cache(ObjectStore(str(tmp_path))), []

    def compute() -> dict[str, Any]:
        calls.append(1)
        return {"fraction": 0.25, "calls": len(calls)}

    assert cache.json_once("a", compute) == cache.json_once("a", compute) == {"fraction": 0.25, "calls": 1}
    assert cache.json_once("b", compute)["calls"] == 2
    (tmp_path / "a.json").write_text("{")
    assert cache.json_once("a", compute)["calls"] == 3


def test_cache_skips_stages_that_change_the_structure(tmp_path: Path) -> None:
    calls = Calls()
    chain = Chain((Noise(calls=calls), QuantizeInt8()), cache=Cache(ObjectStore(str(tmp_path))))
    digests = {chain(tiny_build(), seed=0).artifact.digest for _ in range(2)}
    assert len(digests) == 1
    assert calls.names == ["noise"]
    assert len(list(tmp_path.iterdir())) == 1


def test_cache_files_keep_the_planted_tag(tmp_path: Path) -> None:
    Chain((Plant(calls=Calls()), Bf16()), cache=Cache(ObjectStore(str(tmp_path))))(tiny_build(), seed=0)
    files = list(tmp_path.iterdir())
    assert len(files) == 2
    for file in files:
        with safe_open(file, framework="pt") as opened:
            assert opened.metadata()[PLANTED_KEY] == "noise"


def test_chain_inside_a_chain_runs_all_stages() -> None:
    inner = Chain((PruneTwoFour(), Bf16()), "compress")
    outer = Chain((PruneMagnitude(rate=0.1), inner), "all")
    build = outer(tiny_build(), seed=0)
    assert build.history == ("prune-magnitude-0.1", "prune-2:4", "bf16")
    assert json.loads(json.dumps(outer.spec()))["stages"][1]["name"] == "compress"
    assert isinstance(Plant(calls=Calls()), Planter)
    assert not isinstance(Bf16(), Planter)
