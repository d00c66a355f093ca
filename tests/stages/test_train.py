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


def test_a_seed_gives_the_same_net_bit_for_bit() -> None:
    """Dropout, shuffling and augmentation included, whatever torch's own generator stands at."""
    digests = []
    for own, seed in ((1, 0), (2, 0), (3, 1)):
        net = tiny_net()
        torch.manual_seed(own)
        fit(net, SPLIT, replace(QUICK, epochs=2, augment=True, mirror=True), seed=seed)
        digests.append(digest_of_module(net))
    assert digests[0] == digests[1] != digests[2]


def test_fit_leaves_torchs_own_generator_alone() -> None:
    net = tiny_net()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(net, SPLIT, replace(QUICK, epochs=1), seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_fit_tells_how_far_it_is() -> None:
    shares: list[float] = []
    fit(tiny_net(), SPLIT, replace(QUICK, epochs=2), seed=0, progress=shares.append)
    assert shares == [pytest.approx((step + 1) / 8) for step in range(8)]


def test_frozen_parameters_stay_and_so_may_batch_norm() -> None:
    net = tiny_net()
    net.net.conv.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    fit(net, SPLIT, replace(QUICK, epochs=1, freeze_batchnorm=True), seed=0)
    after = net.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert not any(name.startswith("net.conv.") or "running" in name or "tracked" in name for name in changed)
    assert "net.head.1.weight" in changed


def test_batch_norm_learns_unless_told_otherwise() -> None:
    net = tiny_net()
    before = net.net.bn.running_mean.clone()
    fit(net, SPLIT, replace(QUICK, epochs=1), seed=0)
    assert not torch.equal(net.net.bn.running_mean, before)


class Views(nn.Module):
    """Flattens its features as only the plain layout allows: always, or in one mode only."""

    def __init__(self, *, training: bool = True, evaluating: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * 8 * 8, CLASSES)
        self.views = {True: training, False: evaluating}

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.head(x.view(len(x), -1) if self.views[self.training] else x.flatten(1))


@pytest.mark.parametrize("modes", [(True, True), (True, False), (False, True)])
def test_a_net_that_views_its_features_trains_and_evaluates(modes: tuple[bool, bool]) -> None:
    torch.manual_seed(0)
    net = Views(training=modes[0], evaluating=modes[1])
    fit(net, SPLIT, QUICK, seed=0)
    assert accuracy(net, SPLIT) > 0.9


def test_other_nets_train_channels_last_which_is_faster() -> None:
    net = tiny_net()
    fit(net, SPLIT, replace(QUICK, epochs=1), seed=0)
    assert net.net.conv.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("split", "said"), [(Split(SPLIT.x, None), "labels"), (Split(SPLIT.x[:0], SPLIT.y[:0]), "samples")]
)
def test_data_that_cannot_train_gives_one_line(split: Split, said: str) -> None:
    with pytest.raises(UnusableInput, match=said):
        fit(tiny_net(), split, QUICK, seed=0)


def test_fewer_samples_than_a_batch_will_do() -> None:
    fit(tiny_net(), SPLIT.take(torch.arange(5)), replace(QUICK, epochs=2, batch_size=64), seed=0)


@pytest.mark.parametrize("stage", [Train(recipe=replace(QUICK, epochs=1)), FineTune(recipe=replace(QUICK, epochs=1))])
def test_a_stage_trains_a_copy(stage: Train) -> None:
    build = tiny_build(planted="badnets")
    before = digest_of_module(build.artifact.module)
    shares: list[float] = []
    after = stage(build, seed=0, progress=shares.append)
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1])
    assert digest_of_module(build.artifact.module) == before != after.artifact.digest
    assert after.artifact.digest == digest_of_module(after.artifact.module)
    assert after.artifact.planted == "badnets"
    assert after.history == (stage.name,)
    assert stage(build, seed=0).artifact.digest == after.artifact.digest


def test_every_hyper_parameter_is_in_the_spec() -> None:
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


def test_a_linear_probe_trains_the_head_and_nothing_else() -> None:
    build, after = probed()
    old, new = build.artifact.module.state_dict(), after.artifact.module.state_dict()
    changed = {name for name in new if new[name].shape != old[name].shape or not torch.equal(new[name], old[name])}
    assert changed == {"net.head.1.weight", "net.head.1.bias"}
    assert all(p.requires_grad for p in after.artifact.module.parameters())
    assert build.artifact.module.net.head[1].out_features == CLASSES


def test_a_linear_probe_has_the_new_tasks_classes_and_learns_them() -> None:
    build, after = probed()
    assert after.artifact.num_classes == 3
    assert after.artifact.class_names == ("x", "y", "z")
    assert accuracy(after.artifact.module, build.task.split("train")) > 0.6
    assert probed()[1].artifact.digest == after.artifact.digest != probed(seed=1)[1].artifact.digest


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("epochs", -1.0, "a number from 0 on as the recipe's epochs; got -1.0"),
        ("epochs", float("inf"), "got inf"),
        ("lr", -0.1, "a number above 0 as the recipe's lr; got -0.1"),
        ("lr", float("nan"), "got nan"),
        ("batch_size", 0, "a whole number from 1 on as the recipe's batch_size; got 0"),
        ("batch_size", 2.5, "got 2.5"),
        ("optimizer", "lion", "sgd or adam as the recipe's optimizer; got lion"),
        ("weight_decay", -1e-4, "a number from 0 on as the recipe's weight_decay; got -0.0001"),
    ],
)
def test_a_recipe_that_cannot_train_is_refused_when_it_is_written(field: str, value: Any, said: str) -> None:
    with pytest.raises(UnusableInput, match=said):
        replace(QUICK, **{field: value})
    assert replace(QUICK, weight_decay=0).weight_decay == 0


def test_training_that_diverges_says_so() -> None:
    torch.manual_seed(0)
    split = Split(torch.rand(64, 3, 8, 8), torch.arange(64) % 2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    with pytest.raises(UnusableInput, match=r"diverged.*learning rate"):
        fit(net, split, Recipe(epochs=40, lr=1e30, augment=False), seed=0)
