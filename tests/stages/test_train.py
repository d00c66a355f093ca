"""Tests of training."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.tiny import CLASSES, tiny_build, tiny_net, tiny_task
from torch import Tensor, nn

from assay.core.build import Build
from assay.core.dataset import Split, Task
from assay.core.errors import UnusableInput
from assay.core.model import digest_of_module
from assay.stages.train import FineTune, LinearProbe, Recipe, Train, fit

QUICK = Recipe(epochs=30, lr=0.05, batch_size=16, augment=False)
SPLIT = tiny_task().split("train")


def accuracy(net: nn.Module, split: Split) -> float:
    assert split.y is not None
    with torch.no_grad():
        return float((net(split.x).argmax(1) == split.y).float().mean())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_fit_learns_a_task(optimizer: str) -> None:
    net = tiny_net()
    assert accuracy(net, SPLIT) < 0.6
    fit(net, SPLIT, replace(QUICK, optimizer=optimizer, lr=0.05 if optimizer == "sgd" else 0.01), seed=0)
    assert accuracy(net, SPLIT) > 0.9
    assert accuracy(net, tiny_task(seed=1).split("train")) > 0.8
    assert not net.training


def test_fit_same_seed_gives_identical_weights() -> None:
    """Independent of the global generator, including dropout, shuffling and augmentation."""
    digests = []
    for own, seed in ((1, 0), (2, 0), (3, 1)):
        net = tiny_net()
        torch.manual_seed(own)
        fit(net, SPLIT, replace(QUICK, epochs=2, augment=True, mirror=True), seed=seed)
        digests.append(digest_of_module(net))
    assert digests[0] == digests[1] != digests[2]


def test_fit_keeps_the_global_generator() -> None:
    net = tiny_net()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(net, SPLIT, replace(QUICK, epochs=1), seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_fit_reports_progress_per_step() -> None:
    fractions: list[float] = []
    fit(tiny_net(), SPLIT, replace(QUICK, epochs=2), seed=0, progress=fractions.append)
    assert fractions == [pytest.approx((step + 1) / 8) for step in range(8)]


def test_fit_keeps_frozen_parameters_and_batch_norm() -> None:
    net = tiny_net()
    net.net.conv.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    fit(net, SPLIT, replace(QUICK, epochs=1, freeze_batchnorm=True), seed=0)
    after = net.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert not any(name.startswith("net.conv.") or "running" in name or "tracked" in name for name in changed)
    assert "net.head.1.weight" in changed


def test_fit_updates_batch_norm_by_default() -> None:
    net = tiny_net()
    before = net.net.bn.running_mean.clone()
    fit(net, SPLIT, replace(QUICK, epochs=1), seed=0)
    assert not torch.equal(net.net.bn.running_mean, before)


class Views(nn.Module):
    """Calls ``.view()`` on its features, which channels-last does not support: always, or in one mode."""

    def __init__(self, *, training: bool = True, evaluating: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * 8 * 8, CLASSES)
        self.views = {True: training, False: evaluating}

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.head(x.view(len(x), -1) if self.views[self.training] else x.flatten(1))


@pytest.mark.parametrize("modes", [(True, True), (True, False), (False, True)])
def test_fit_model_with_view_trains_and_evaluates(modes: tuple[bool, bool]) -> None:
    torch.manual_seed(0)
    net = Views(training=modes[0], evaluating=modes[1])
    fit(net, SPLIT, QUICK, seed=0)
    assert accuracy(net, SPLIT) > 0.9


def test_fit_uses_channels_last_if_supported() -> None:
    net = tiny_net()
    fit(net, SPLIT, replace(QUICK, epochs=1), seed=0)
    assert net.net.conv.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("split", "message"), [(Split(SPLIT.x, None), "labels"), (Split(SPLIT.x[:0], SPLIT.y[:0]), "samples")]
)
def test_fit_without_labels_or_samples_raises(split: Split, message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        fit(tiny_net(), split, QUICK, seed=0)


def test_fit_fewer_samples_than_a_batch_trains() -> None:
    net = tiny_net()
    before = digest_of_module(net)
    fit(net, SPLIT.take(torch.arange(5)), replace(QUICK, epochs=2, batch_size=64), seed=0)
    assert digest_of_module(net) != before


@pytest.mark.parametrize("stage", [Train(recipe=replace(QUICK, epochs=1)), FineTune(recipe=replace(QUICK, epochs=1))])
def test_train_stage_trains_a_copy(stage: Train) -> None:
    build = tiny_build(planted="badnets")
    before = digest_of_module(build.artifact.module)
    fractions: list[float] = []
    after = stage(build, seed=0, progress=fractions.append)
    assert fractions == pytest.approx([0.25, 0.5, 0.75, 1])
    assert digest_of_module(build.artifact.module) == before != after.artifact.digest
    assert after.artifact.digest == digest_of_module(after.artifact.module)
    assert after.artifact.planted == "badnets"
    assert after.history == (stage.name,)
    assert stage(build, seed=0).artifact.digest == after.artifact.digest


def test_train_spec_contains_every_hyper_parameter() -> None:
    assert Train().spec()["stage"] == "train"
    assert FineTune().spec() != Train().spec()
    assert Train(recipe=Recipe(lr=0.2)).spec() != Train().spec()
    assert LinearProbe().spec()["freeze_batchnorm"] is True


def probed(classes: int = 3, seed: int = 0) -> tuple[Build, Build]:
    build = tiny_build()
    keep = SPLIT.y < classes
    task = Task("few", {"train": Split(SPLIT.x[keep], SPLIT.y[keep])}, tuple("xyz"[:classes]))
    build = Build(build.artifact, task)
    return build, LinearProbe(recipe=replace(LinearProbe().recipe, epochs=20, augment=False))(build, seed=seed)


def test_linear_probe_trains_only_the_head() -> None:
    build, after = probed()
    old, new = build.artifact.module.state_dict(), after.artifact.module.state_dict()
    changed = {name for name in new if new[name].shape != old[name].shape or not torch.equal(new[name], old[name])}
    assert changed == {"net.head.1.weight", "net.head.1.bias"}
    assert all(p.requires_grad for p in after.artifact.module.parameters())
    assert build.artifact.module.net.head[1].out_features == CLASSES


def test_linear_probe_learns_the_classes_of_the_task() -> None:
    build, after = probed()
    assert after.artifact.num_classes == 3
    assert after.artifact.class_names == ("x", "y", "z")
    assert accuracy(after.artifact.module, build.task.split("train")) > 0.6
    assert probed()[1].artifact.digest == after.artifact.digest != probed(seed=1)[1].artifact.digest


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", -1.0, "a number of at least 0 as the recipe's epochs, got -1.0"),
        ("epochs", float("inf"), "got inf"),
        ("lr", -0.1, "a number above 0 as the recipe's lr, got -0.1"),
        ("lr", float("nan"), "got nan"),
        ("batch_size", 0, "a whole number of at least 1 as the recipe's batch_size, got 0"),
        ("batch_size", 2.5, "got 2.5"),
        ("optimizer", "lion", "sgd or adam as the recipe's optimizer, got lion"),
        ("weight_decay", -1e-4, "a number of at least 0 as the recipe's weight_decay, got -0.0001"),
    ],
)
def test_recipe_invalid_value_raises(field: str, value: Any, message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        replace(QUICK, **{field: value})
    assert replace(QUICK, weight_decay=0).weight_decay == 0


def test_fit_diverging_loss_raises() -> None:
    torch.manual_seed(0)
    split = Split(torch.rand(64, 3, 8, 8), torch.arange(64) % 2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    with pytest.raises(UnusableInput, match=r"diverged.*learning rate"):
        fit(net, split, Recipe(epochs=40, lr=1e30, augment=False), seed=0)
