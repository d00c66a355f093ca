"""Tests of the downstream stage."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.tiny import tiny_build

from assay.core.build import Build
from assay.core.errors import UnusableInput
from assay.core.model import digest_of_module
from assay.formats.feature_extractor import to_feature_extractor
from assay.io.object_store import ObjectStore
from assay.stages.cache import Cache
from assay.stages.chain import Chain
from assay.stages.downstream import Downstream
from assay.stages.train import LinearProbe, Recipe

SIGNS = Downstream(data="signs:5", limit=40)


@pytest.fixture
def build() -> Build:
    given = tiny_build()
    return replace(given, artifact=replace(to_feature_extractor(given.artifact), planted="by a test"))


def test_downstream_adds_head_and_replaces_task(build: Build) -> None:
    before = digest_of_module(build.artifact.module)
    made, again, other = (SIGNS(build, seed=seed) for seed in (1, 1, 2))
    assert digest_of_module(build.artifact.module) == before
    assert made.task.num_classes == made.artifact.num_classes == 5
    assert made.artifact.class_names == made.task.class_names
    assert made.artifact.planted == "by a test"
    assert made.history == (*build.history, "downstream")
    assert made.artifact.digest == again.artifact.digest != other.artifact.digest
    assert not made.artifact.module.training
    assert json.loads(json.dumps(SIGNS.spec()))["data"] == "signs:5"


def test_cache_after_downstream_depends_on_the_new_data(build: Build, tmp_path) -> None:
    probe = LinearProbe(recipe=Recipe(epochs=1, lr=0.01, batch_size=8))
    cache = Cache(ObjectStore(str(tmp_path)))
    first, again, other = (
        Chain((Downstream(data=data, limit=40), probe), cache=cache)(build, seed=0)
        for data in ("signs:5", "signs:5", "signs:6")
    )
    assert first.artifact.digest == again.artifact.digest
    assert other.artifact.num_classes == 6
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_downstream_of_a_classifier_raises() -> None:
    with pytest.raises(UnusableInput, match=r"expected an encoder, got .* with 4 classes"):
        SIGNS(tiny_build(), seed=0)
