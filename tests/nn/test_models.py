"""Tests of architectures, heads, normalization and modes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from assay import data, formats
from assay.core.errors import UnusableInput
from assay.nn.architectures import ARCHITECTURES, Normalized
from assay.nn.head import last_linear, replace_head
from assay.nn.modes import eval_mode


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "resnet18-cifar"])
def test_every_architecture_builds_and_runs(name: str) -> None:
    architecture = ARCHITECTURES[name]
    net = Normalized(architecture.build(7), architecture.mean, architecture.std).eval()
    with torch.no_grad():
        logits = net(torch.rand(2, *architecture.shape))
    assert logits.shape == (2, 7)
    assert bool(logits.isfinite().all())
    assert last_linear(net)[1].out_features == 7


@pytest.mark.parametrize(("depth", "parameters"), [(20, 0.27e6), (32, 0.46e6), (44, 0.66e6), (56, 0.85e6)])
def test_resnets_have_the_size_of_the_paper(depth: int, parameters: float) -> None:
    net = ARCHITECTURES[f"resnet{depth}-cifar"].build(10)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(parameters, rel=0.02)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules()) == depth


@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_third_party_weights_load_unchanged(shared: Path, depth: int) -> None:
    artifact = formats.load(shared / f"models/resnet{depth}-cifar10/model.safetensors", arch=f"resnet{depth}-cifar")
    assert artifact.num_classes == 10
    assert artifact.differentiable
    assert artifact.planted is None
    with torch.no_grad():
        assert artifact.module(torch.rand(2, *artifact.inputs.shape)).shape == (2, 10)


def test_third_party_resnet_has_expected_accuracy(shared: Path) -> None:
    artifact = formats.load(shared / "models/resnet20-cifar10/model.safetensors", arch="resnet20-cifar")
    task = data.load(str(shared / "data/cifar10"), artifact.inputs, num_classes=10, limit=500)
    test = task.split("test")
    assert len(test) == 500
    assert test.y is not None
    with torch.no_grad():
        correct = artifact.module.eval()(test.x).argmax(1) == test.y
    assert float(correct.float().mean()) > 0.9


def test_last_linear_returns_name_and_layer() -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 3), nn.Identity()))
    name, head = last_linear(net)
    assert name == "2.0"
    assert head is net[2][0]
    with pytest.raises(UnusableInput, match="ends in a linear layer"):
        last_linear(nn.Conv2d(3, 3, 1))


def test_replace_head_changes_only_the_head() -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    first = net[0].weight.clone()
    head = replace_head(net, 9, seed=0)
    assert net[2] is head
    assert (head.in_features, head.out_features, head.weight.dtype) == (5, 9, torch.float64)
    assert torch.equal(net[0].weight, first)
    assert torch.equal(replace_head(net, 9, seed=0).weight, head.weight)
    assert not torch.equal(replace_head(net, 9, seed=1).weight, head.weight)


def test_replace_head_of_a_single_linear_layer_raises() -> None:
    with pytest.raises(UnusableInput, match="linear"):
        replace_head(nn.Linear(3, 4), 2, seed=0)


def test_replace_head_keeps_the_global_random_state() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 2))
    torch.manual_seed(0)
    replace_head(net, 2, seed=7)
    assert torch.equal(torch.rand(2), expected)


def test_normalization_applies_first_and_has_no_state() -> None:
    net = Normalized(nn.Identity(), (0.5, 0.25), (0.5, 0.25))
    x = torch.tensor([[[[1.0]], [[0.0]]]])
    assert net(x).flatten().tolist() == [1.0, -1.0]
    assert not net.state_dict()


def test_eval_mode_restores_every_mode() -> None:
    net = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)).train()
    net[1].eval()
    modes: list[bool] = []

    def fail() -> None:
        with eval_mode(net) as same:
            modes.extend(m.training for m in same.modules())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert modes == [False] * 3
    assert [m.training for m in net.modules()] == [True, True, False]
