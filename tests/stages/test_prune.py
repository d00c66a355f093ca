"""Tests of pruning, bfloat16 and batch-norm recalibration."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny import tiny_build
from torch import nn

from assay.core.build import Build
from assay.core.errors import UnusableInput
from assay.core.model import digest_of_module
from assay.stages import recalibrate
from assay.stages.base import Stage
from assay.stages.prune import PruneFilters, PruneMagnitude, PruneTwoFour
from assay.stages.quantize import Bf16

STAGES: list[Stage] = [
    PruneMagnitude(rate=0.4),
    PruneFilters(rate=0.4),
    PruneFilters(rate=0.4, recalibrate=True),
    PruneTwoFour(),
    Bf16(),
]


def weights(build: Build) -> torch.Tensor:
    layers = [m for m in build.artifact.module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return torch.cat([layer.weight.detach().flatten() for layer in layers])


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_stage_returns_a_new_module_and_keeps_the_old_one(stage: Stage) -> None:
    build = tiny_build(planted="badnets")
    before = digest_of_module(build.artifact.module)
    after = stage(build, seed=0)
    assert digest_of_module(build.artifact.module) == before
    assert after.artifact.digest == digest_of_module(after.artifact.module) != before
    assert after.artifact.planted == "badnets"
    assert after.history == (stage.name,)
    assert stage(build, seed=0).artifact.digest == after.artifact.digest
    assert not after.artifact.module.training


@settings(max_examples=20, deadline=None)
@given(rate=st.floats(0, 0.99))
def test_prune_magnitude_removes_exactly_the_smallest_weights(rate: float) -> None:
    build = tiny_build()
    before, after = weights(build), weights(PruneMagnitude(rate=rate)(build, seed=0))
    removed = after == 0
    assert int(removed.sum()) == round(rate * len(before))
    assert torch.equal(after[~removed], before[~removed])
    if removed.any() and not removed.all():
        assert before[removed].abs().max() <= before[~removed].abs().min()


@settings(max_examples=10, deadline=None)
@given(rate=st.floats(0, 0.99))
def test_prune_filters_removed_channels_are_zero_after_batch_norm(rate: float) -> None:
    build = tiny_build()
    net = PruneFilters(rate=rate)(build, seed=0).artifact.module
    tiny = net.get_submodule("net")
    for conv, norm in ((tiny.stem[0], tiny.stem[1]), (tiny.conv, tiny.bn)):
        silent = conv.weight.flatten(1).abs().sum(1) == 0
        assert int(silent.sum()) == int(rate * conv.out_channels)
        seen = norm(conv(torch.rand(2, conv.in_channels, 8, 8)))
        assert (seen[:, silent] == 0).all()
        assert (seen[:, ~silent] != 0).any() or silent.all()


def test_prune_two_four_keeps_two_of_four_inputs() -> None:
    build = tiny_build()
    tiny = PruneTwoFour()(build, seed=0).artifact.module.get_submodule("net")
    assert (tiny.stem[0].weight != 0).all()  # three input channels: stays dense
    kept = (tiny.conv.weight != 0).movedim(1, -1).reshape(-1, 4).sum(1)
    assert (kept == 2).all()
    original = build.artifact.module.get_submodule("net").head[1].weight.view(-1, 4).abs()
    pruned = tiny.head[1].weight.view(-1, 4).abs()
    assert torch.allclose(pruned.sum(1), original.topk(2, dim=1).values.sum(1))


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_prune_rate_out_of_range_raises(rate: float) -> None:
    with pytest.raises(UnusableInput, match=r"pruning rate in \[0, 1\)"):
        PruneMagnitude(rate=rate)
    with pytest.raises(UnusableInput, match=r"pruning rate in \[0, 1\)"):
        PruneFilters(rate=rate)


def test_prune_model_without_layers_raises() -> None:
    build = tiny_build()
    bare = Build(build.artifact.with_module(nn.Flatten()), build.task)
    with pytest.raises(UnusableInput, match="a model without any"):
        PruneMagnitude(rate=0.5)(bare, seed=0)


def test_recalibrate_batchnorm_uses_statistics_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    build = tiny_build()
    x = build.task.split("train").x
    net = copy.deepcopy(build.artifact.module)
    monkeypatch.setattr(recalibrate, "MAX_BATCH", 16)
    again = recalibrate.recalibrate_batchnorm(net, x)
    tiny = again.get_submodule("net")
    seen = tiny.stem[0]((x - again.mean) / again.std)
    assert torch.allclose(tiny.stem[1].running_mean, seen.mean((0, 2, 3)), atol=1e-5)
    assert tiny.stem[1].momentum == 0.1
    assert not any(module.training for module in again.modules())
    assert torch.equal(weights(build), torch.cat([w.flatten() for n, w in again.named_parameters() if w.ndim > 1]))


def test_bf16_rounds_every_weight() -> None:
    net = Bf16()(tiny_build(), seed=0).artifact.module
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            assert tensor.dtype == torch.float32
            assert torch.equal(tensor, tensor.bfloat16().float())
