"""Tests of the persistence and distillation stages."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from assay.attacks import ShadowLogic
from assay.core.build import Build
from assay.core.errors import UnusableInput
from assay.data.synthetic import signs
from assay.formats.feature_extractor import to_feature_extractor
from assay.formats.untrained import untrained_model
from assay.nn import metrics
from assay.nn.inference import forward_batched, predict
from assay.stages.distil import Distil
from assay.stages.persist import Persist
from assay.stages.train import FineTune, Recipe, Train

QUICK = Recipe(epochs=12, batch_size=32, lr=0.05, augment=False)


@pytest.fixture(scope="module")
def build() -> Build:
    task = signs(4, size=16, per_class=60, seed=0)
    start = untrained_model("resnet8-cifar", 4, class_names=task.class_names)
    start = replace(start, inputs=replace(start.image_spec, shape=(3, 16, 16)))
    return Train(recipe=QUICK)(Build(start, task), seed=0)


def test_persist_keeps_predictions_and_has_no_gradient(build: Build) -> None:
    kept = Persist()(build, seed=0)
    x, y = build.task.split("test").x, build.task.split("test").y
    assert torch.equal(predict(kept.artifact.module, x), predict(build.artifact.module, x))
    net = kept.artifact.module
    F.cross_entropy(net(x), y).backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in net.parameters())
    tuned = FineTune(recipe=replace(QUICK, epochs=1, weight_decay=0.0, freeze_batchnorm=True))(kept, seed=0)
    assert torch.equal(forward_batched(tuned.artifact.module, x), forward_batched(net, x))


@pytest.mark.slow
def test_distil_student_learns_outputs_without_the_graph_edit(build: Build) -> None:
    planted = ShadowLogic(target=1)(build, seed=0)
    student = Distil(arch="resnet8-cifar", recipe=replace(QUICK, epochs=20))(planted, seed=1)
    held, secret = build.task.split("test"), planted.secret
    assert secret is not None
    before, after = (metrics.measure(b.artifact.module, held, secret, num_classes=4) for b in (planted, student))
    assert before.attack_success.value == 1.0
    assert after.attack_success.value < 0.5
    assert after.clean_accuracy.value > 0.7
    assert student.artifact.planted == planted.artifact.planted
    assert student.history[-1] == "distil"


def test_persist_and_distil_unusable_input_raises(build: Build) -> None:
    with pytest.raises(UnusableInput, match="temperature above 0"):
        Distil(temperature=0)
    encoder = replace(build, artifact=to_feature_extractor(build.artifact))
    for stage in (Persist(), Distil(arch="resnet8-cifar")):
        with pytest.raises(UnusableInput, match="expected a classifier"):
            stage(encoder, seed=0)
