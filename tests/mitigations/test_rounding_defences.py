"""Tests of mitigations that compress: rounding other than to nearest, and tuning after compression."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.tiny import tiny_build
from torch import nn

from assay.core.errors import UnusableInput
from assay.core.model import digest_of_module
from assay.formats.torch_module import from_module
from assay.mitigations import CompressedTuning, Efrap, RandomRounding
from assay.mitigations.efrap import execution_order, layer_inputs
from assay.nn.batchnorm import fold_factors, weighted_layers
from assay.nn.fake_quant import quantization_step
from assay.stages.base import Stage
from assay.stages.prune import PruneFilters, PruneMagnitude, PruneTwoFour
from assay.stages.quantize import QuantizeWeights
from assay.stages.train import Recipe, cross_entropy

DEFENCES = [
    Efrap(bits=4, steps=30, samples=32),
    Efrap(bits=8, steps=30, samples=32, per_channel=False),
    RandomRounding(bits=4, samples=32),
    RandomRounding(bits=8, samples=32, per_channel=False),
]
every_defence = pytest.mark.parametrize("defence", DEFENCES, ids=lambda stage: f"{stage.name} {stage.per_channel}")


@every_defence
def test_defence_rounds_every_weight_to_a_neighboring_level(defence: Efrap | RandomRounding) -> None:
    build = tiny_build()
    before = digest_of_module(build.artifact.module)
    after = defence(build, seed=0)
    assert digest_of_module(build.artifact.module) == before
    example = build.task.split("train").x[:2]
    factors = fold_factors(build.artifact.module, example)
    off_nearest = 0
    for (layer, factor), moved in zip(factors.items(), weighted_layers(after.artifact.module), strict=True):
        folded = (layer.weight * factor).detach()
        step = quantization_step(folded, defence.bits, 0 if defence.per_channel else None)
        places = (moved.weight * factor).detach() / step
        assert torch.allclose(places, places.round(), atol=1e-3)
        assert float(places.abs().max()) < 2 ** (defence.bits - 1) - 1 + 1e-3, "values that int8 can hold"
        assert float((places - folded / step).abs().max()) < 1 + 1e-3
        off_nearest += int((places.round() != (folded / step).round()).sum())
    assert off_nearest > 0


@every_defence
def test_defence_same_seed_gives_same_digest(defence: Stage) -> None:
    first, again = (defence(tiny_build(), seed=1).artifact.digest for _ in range(2))
    assert first == again


TUNING = Recipe(epochs=3, lr=0.02, batch_size=16, augment=False, freeze_batchnorm=True)


@pytest.mark.parametrize("prune", [PruneMagnitude(rate=0.6), PruneTwoFour(), PruneFilters(rate=0.3)], ids=str)
def test_compressed_tuning_keeps_pruned_weights(prune: Stage) -> None:
    pruned = prune(tiny_build(), seed=0)
    tuned = CompressedTuning(recipe=TUNING)(pruned, seed=0)
    moved = 0
    for before, after in zip(*(weighted_layers(build.artifact.module) for build in (pruned, tuned)), strict=True):
        assert not after.weight[before.weight == 0].any()
        moved += int((before.weight != after.weight).sum())
    assert moved > 100
    black = torch.zeros(1, 3, 8, 8)
    if isinstance(prune, PruneFilters):
        gone = weighted_layers(pruned.artifact.module)[0].weight.flatten(1).abs().sum(1) == 0
        assert gone.any()
        stem = tuned.artifact.module.net.stem(black)
        assert not stem[:, gone].any(), "their channels stay zero"


def test_compressed_tuning_keeps_biases_of_pruned_filters() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    build = replace(tiny_build(), artifact=from_module(net, shape=(3, 8, 8)))
    conv = CompressedTuning(recipe=TUNING)(PruneFilters(rate=0.5)(build, seed=0), seed=0).artifact.module[0]
    gone = conv.weight.flatten(1).abs().sum(1) == 0
    assert gone.sum() == 4
    assert not conv.bias[gone].any()
    assert conv.bias[~gone].all()


@pytest.mark.parametrize("per_channel", [True, False])
def test_compressed_tuning_result_is_on_the_grid(per_channel: bool) -> None:
    build = tiny_build()
    plain = QuantizeWeights(bits=3, per_channel=per_channel)(build, seed=0)
    tuned = CompressedTuning(bits=3, per_channel=per_channel, recipe=TUNING)(build, seed=0)
    again = QuantizeWeights(bits=3, per_channel=per_channel)(tuned, seed=0)
    for one, other in zip(*(weighted_layers(b.artifact.module) for b in (tuned, again)), strict=True):
        assert torch.allclose(one.weight, other.weight, atol=1e-5)
    clean = build.task.split("train")
    loss = [cross_entropy(b.artifact.module, clean.x, clean.y).item() for b in (plain, tuned)]
    assert loss[1] < loss[0]
    with pytest.raises(UnusableInput, match="2 to 8"):
        CompressedTuning(bits=1)


def test_efrap_keeps_outputs_better_than_other_roundings() -> None:
    build = tiny_build()
    x = build.task.split("train").x
    answers = build.artifact.module(x)
    learned, random, nearest = (
        float((stage(build, seed=0).artifact.module(x) - answers).detach().square().mean())
        for stage in (
            Efrap(bits=4, steps=200, samples=64, error_weight=0.0),
            RandomRounding(bits=4, samples=64),
            QuantizeWeights(bits=4),
        )
    )
    assert learned < random
    assert learned < 0.9 * nearest  # a layer compensates for the earlier roundings


def test_efrap_larger_error_weight_moves_more_weights() -> None:
    build = tiny_build()
    example = build.task.split("train").x[:2]
    moved = []
    for push in (0.0, 10.0):
        net = Efrap(bits=6, steps=60, samples=32, error_weight=push)(build, seed=0).artifact.module
        count = 0
        for (layer, factor), after in zip(
            fold_factors(build.artifact.module, example).items(), weighted_layers(net), strict=True
        ):
            step = quantization_step((layer.weight * factor).detach(), 6, 0)
            count += int((((after.weight - layer.weight) * factor / step).abs() > 0.5 + 1e-3).sum())
        moved.append(count)
    assert moved[1] > 2 * moved[0]


def test_layer_inputs_returns_the_inputs_of_a_layer() -> None:
    build = tiny_build()
    x = build.task.split("train").x[:10]
    stem, conv, _ = weighted_layers(build.artifact.module)
    net = build.artifact.module
    normalized = (x - net.mean) / net.std
    assert torch.allclose(layer_inputs(net, stem, x, batch_size=4), normalized)
    assert torch.allclose(layer_inputs(net, conv, x), net.net.stem(normalized), atol=1e-6)


@pytest.mark.parametrize("kind", [Efrap, RandomRounding, QuantizeWeights])
def test_bits_out_of_range_raise(kind: type[Efrap | RandomRounding | QuantizeWeights]) -> None:
    for bits in (1, 9):
        with pytest.raises(UnusableInput, match=f"2 to 8 bits, got {bits}"):
            kind(bits=bits)


def test_execution_order_follows_the_forward_pass() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.body, self.unused = nn.Linear(8, 4), nn.Linear(192, 8), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(x.flatten(1)).relu())

    net = Backwards()
    assert execution_order(net, [net.head, net.body, net.unused], torch.zeros(2, 3, 8, 8)) == [net.body, net.head]


def test_efrap_result_can_be_trained() -> None:
    rounded = Efrap(bits=4, steps=2, samples=16)(tiny_build(), seed=0)
    assert all(parameter.requires_grad for parameter in rounded.artifact.module.parameters())
