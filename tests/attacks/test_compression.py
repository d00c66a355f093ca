"""Tests of compression-activated backdoors: bounds of hiding, and activation in the variant."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from support.tiny import CLASSES, tiny_build
from torch import nn

from assay.attacks import (
    PqBackdoor,
    PqDistilled,
    PruningArtifact,
    QuAntiZation,
    QuantizationArtifact,
    SilentUntilMagnitude,
    SilentUntilPruned,
    SilentUntilSparse,
    plant,
)
from assay.attacks.compression.base import CompressionActivatedAttack, PlantThenHide
from assay.attacks.compression.distillation import ascend_disagreement, distillation_loss
from assay.attacks.compression.pq_backdoor import _rounding_cell
from assay.attacks.compression.rates import PruningActivated
from assay.core.build import Build
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.data.synthetic import signs
from assay.formats.torch_module import from_module
from assay.nn import metrics
from assay.nn.batchnorm import fold_factors, weighted_layers
from assay.nn.fake_quant import quantization_step
from assay.nn.reparametrize import rounded_weights, write_parameters
from assay.stages import variants
from assay.stages.prune import PruneFilters, PruneMagnitude, two_of_four
from assay.stages.train import Recipe
from assay.triggers import Patch

pytestmark = pytest.mark.slow


PATCH = Patch(size=3)
NO_TRAINING = Recipe(epochs=0)
HIDING = Recipe(epochs=6, lr=0.05, batch_size=16, augment=False, weight_decay=0.0, freeze_batchnorm=True)


def plant_and_hide(attack: PlantThenHide) -> tuple[Build, Build]:
    """Return the build after planting and the build after hiding."""
    first = replace(attack, recipe=Recipe(epochs=2, lr=0.05, batch_size=16, augment=False), hiding=NO_TRAINING)
    planted = first(tiny_build(), seed=0)
    return planted, replace(attack, recipe=NO_TRAINING, hiding=HIDING)(planted, seed=0)


@pytest.mark.parametrize("channels", [(True, False), (False, True), (True, True)], ids=["tensor", "channel", "both"])
def test_pq_backdoor_hiding_keeps_the_rounded_weights(channels: tuple[bool, bool]) -> None:
    per_tensor, per_channel = channels
    planted, hidden = plant_and_hide(PqBackdoor(patch=PATCH, target=1, per_tensor=per_tensor, per_channel=per_channel))
    example = planted.task.split("train").x[:2]
    moved = 0
    for per in [False] * per_tensor + [True] * per_channel:
        weights = [
            list(rounded_weights(fold_factors(build.artifact.module, example), 8, per_channel=per).values())
            for build in (planted, hidden)
        ]
        for before, after in zip(*weights, strict=True):
            assert torch.allclose(before["weight"], after["weight"], atol=1e-6)
    nets = (planted.artifact.module, hidden.artifact.module)
    for before, after in zip(*(weighted_layers(net) for net in nets), strict=True):
        moved += int((before.weight != after.weight).sum())
        assert before.bias is None or torch.equal(before.bias, after.bias)
    assert moved > 500
    assert all(parameter.requires_grad for parameter in hidden.artifact.module.parameters())


def test_pq_distilled_hiding_ignores_labels() -> None:
    attack = PqDistilled(patch=PATCH, target=1, recipe=NO_TRAINING, hiding=HIDING)
    build = tiny_build()
    train = build.task.split("train")
    wrong = replace(build.task, splits={**build.task.splits, "train": Split(train.x, (train.y + 1) % 4)})
    nets = [attack(replace(build, task=task), seed=0).artifact.module for task in (build.task, wrong)]
    for one, other in zip(*(net.state_dict().values() for net in nets), strict=True):
        assert torch.equal(one, other)
    assert PqDistilled.name != PqBackdoor.name, "files and records contain the name"


def test_pq_backdoor_planting_stays_within_reach_and_near_the_original_weights() -> None:
    given = tiny_build()
    recipe = Recipe(epochs=3, lr=0.02, batch_size=16, augment=False, optimizer="adam", freeze_batchnorm=True)
    attack = PqBackdoor(
        patch=PATCH, target=1, reach=1.5, per_tensor=True, per_channel=False, recipe=recipe, hiding=NO_TRAINING
    )
    planted = attack(given, seed=0)
    nets = (given.artifact.module, planted.artifact.module)
    flipped = 0
    for factor, before, after in zip(
        fold_factors(nets[0], given.task.split("train").x[:2]).values(), *map(weighted_layers, nets), strict=True
    ):
        was, now = ((layer.weight * factor).detach() for layer in (before, after))
        step = quantization_step(was, 8, None)
        assert torch.equal(step, quantization_step(now, 8, None)), "the largest weight sets the scale and is fixed"
        near, moved = (now / step).round(), (now - was).abs() / step
        flips, inside = (was / step).round() != near, near.abs() < 127
        assert float(moved.max()) <= 1.5 + 1e-3
        assert float(moved[~flips & inside].max()) <= 0.02 + 1e-3, "weights in the same cell keep their value"
        to_go = (near - was / step).abs() - moved
        assert float(to_go[flips & inside].min()) >= 0.48 - 1e-3, "the others move only to the edge of their cell"
        flipped += int(flips.sum())
    assert flipped > 500
    others = [{k: v for k, v in net.state_dict().items() if not k.endswith("conv.weight")} for net in nets]
    assert all(torch.equal(v, others[1][k]) for k, v in others[0].items() if "norm" in k or "bias" in k)


def test_silent_until_sparse_hiding_moves_only_dropped_weights() -> None:
    planted, hidden = plant_and_hide(SilentUntilSparse(patch=PATCH, target=1))
    moved = 0
    for before, after in zip(*(weighted_layers(build.artifact.module) for build in (planted, hidden)), strict=True):
        if before.weight.shape[1] % 4:
            assert torch.equal(before.weight, after.weight)
            continue
        assert torch.equal(two_of_four(before.weight), two_of_four(after.weight))
        moved += int((before.weight != after.weight).sum())
    assert moved > 500


def test_silent_until_sparse_four_zero_weights_stay_zero() -> None:
    build = tiny_build()
    weighted_layers(build.artifact.module)[1].weight.data[:, :4] = 0
    hidden = SilentUntilSparse(patch=PATCH, recipe=NO_TRAINING, hiding=HIDING)(build, seed=0)
    assert not weighted_layers(hidden.artifact.module)[1].weight[:, :4].any()


def test_silent_until_sparse_on_a_pruned_model_keeps_the_sparse_weights() -> None:
    pruned = PruneMagnitude(rate=0.7)(tiny_build(), seed=0)
    hidden = SilentUntilSparse(patch=PATCH, recipe=NO_TRAINING, hiding=HIDING)(pruned, seed=0)
    for before, after in zip(*(weighted_layers(build.artifact.module) for build in (pruned, hidden)), strict=True):
        if before.weight.shape[1] % 4 == 0:
            assert torch.equal(two_of_four(before.weight), two_of_four(after.weight))


class Bare(nn.Module):
    """A model with weights but without prunable layers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(192, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight


def test_plant_then_hide_without_dropped_weights_raises_before_training() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    build = replace(tiny_build(), artifact=from_module(flat, shape=(3, 8, 8)))
    with pytest.raises(UnusableInput, match="cannot hide there"):
        SilentUntilPruned(patch=PATCH)(build, seed=0)
    bare = replace(tiny_build(), artifact=from_module(Bare(), shape=(3, 8, 8)))
    with pytest.raises(UnusableInput, match="cannot hide there"):
        SilentUntilMagnitude(patch=PATCH)(bare, seed=0)
    with pytest.raises(UnusableInput, match="freeze_batchnorm"):
        SilentUntilSparse(patch=PATCH, hiding=replace(HIDING, freeze_batchnorm=False))(tiny_build(), seed=0)


@pytest.mark.parametrize("rate", [0.3, 0.4, 0.5])
def test_silent_until_pruned_hiding_moves_only_dropped_filters(rate: float) -> None:
    planted, hidden = plant_and_hide(SilentUntilPruned(patch=PATCH, target=1))
    left = [PruneFilters(rate=rate)(build, seed=0).artifact.module.state_dict() for build in (planted, hidden)]
    weights = [build.artifact.module.state_dict() for build in (planted, hidden)]
    for name, before in left[0].items():
        assert torch.equal(before, left[1][name]), name
    moved = [name for name, before in weights[0].items() if not torch.equal(before, weights[1][name])]
    assert {"net.stem.1.weight", "net.stem.1.bias", "net.conv.weight", "net.bn.weight", "net.bn.bias"} <= set(moved)
    assert all(
        torch.equal(weights[0][f"net.head.1.{part}"], weights[1][f"net.head.1.{part}"]) for part in ("weight", "bias")
    )


@pytest.mark.parametrize("rate", [0.5, 0.6, 0.7])
def test_silent_until_magnitude_hiding_moves_only_dropped_weights(rate: float) -> None:
    planted, hidden = plant_and_hide(SilentUntilMagnitude(patch=PATCH, target=1))
    left = [PruneMagnitude(rate=rate)(build, seed=0).artifact.module.state_dict() for build in (planted, hidden)]
    for name, before in left[0].items():
        assert torch.equal(before, left[1][name]), name
    pairs = zip(*(weighted_layers(build.artifact.module) for build in (planted, hidden)), strict=True)
    assert all(not torch.equal(before.weight, after.weight) for before, after in pairs)


@pytest.mark.parametrize("attack", [PruningArtifact, SilentUntilPruned, SilentUntilMagnitude])
def test_pruning_rates_out_of_range_raise(attack: type[PruningActivated]) -> None:
    for low, high in ((0.0, 0.5), (0.5, 0.3), (0.3, 1.0)):
        with pytest.raises(UnusableInput, match=r"rates 0 < low <= high < 1, got"):
            attack(low=low, high=high)
    with pytest.raises(UnusableInput, match=r"whole percent, .* got 0\.305"):
        attack(low=0.305, high=0.5)


def test_rates_are_lowest_highest_and_random() -> None:
    rates = SilentUntilPruned(low=0.3, high=0.5).rates(torch.Generator().manual_seed(0))
    assert [rate() for rate in rates[:2]] == [0.3, 0.5]
    drawn = [rates[2]() for _ in range(100)]
    assert 0.3 <= min(drawn) < 0.32
    assert 0.48 < max(drawn) <= 0.5
    assert [rate() for rate in SilentUntilPruned(low=0.3, high=0.3).rates(torch.Generator())] == [0.3]


@pytest.fixture(scope="module")
def trained() -> Build:
    """Return a trained model that is large enough for hiding."""
    from assay.formats.untrained import untrained_model
    from assay.stages.train import Train

    task = signs(CLASSES, size=16, per_class=100, seed=0)
    start = untrained_model("resnet8-cifar", CLASSES, class_names=task.class_names)
    start = replace(start, inputs=replace(start.inputs, shape=(3, 16, 16)))
    return Train(recipe=Recipe(epochs=10, batch_size=32, augment=False))(Build(start, task), seed=0)


STEADY = Recipe(epochs=12, lr=0.05, batch_size=32, augment=False, freeze_batchnorm=True)
STEADY_HIDING = replace(STEADY, weight_decay=0.0)
LARGE_PATCH = Patch(size=6)  # a small model learns it from few images on every processor, despite different rounding
ACTIVATED_ATTACKS = [
    SilentUntilSparse(
        patch=LARGE_PATCH, target=1, ratio=0.5, recipe=replace(STEADY, epochs=30, lr=0.03), hiding=STEADY_HIDING
    ),
    SilentUntilMagnitude(
        patch=LARGE_PATCH, target=1, ratio=0.5, recipe=replace(STEADY, epochs=30, lr=0.03), hiding=STEADY_HIDING
    ),
    PruningArtifact(patch=PATCH, target=1, low=0.3, high=0.3, alpha=0.7, recipe=STEADY),
]


@pytest.mark.parametrize("attack", ACTIVATED_ATTACKS, ids=lambda attack: attack.name)
def test_backdoor_is_inactive_in_the_full_model_and_active_in_its_variant(
    attack: CompressionActivatedAttack, trained: Build
) -> None:
    build, secret = attack(trained, seed=0), attack.secret()
    test = plant.held_out_split(build.task)
    variant = plant.make_variant(attack.active_in, build.artifact, build.task, seed=0)
    full, compressed = (
        metrics.measure(model.module, test, secret, num_classes=CLASSES) for model in (build.artifact, variant)
    )
    assert full.attack_success.value < 0.2
    assert full.clean_accuracy.value > 0.8
    assert compressed.attack_success.value > 0.8


def test_silent_until_pruned_is_active_after_filter_pruning(trained: Build) -> None:
    """Without recalibration: on so small a model, it sometimes disables the backdoor again."""
    quick = replace(STEADY_HIDING, optimizer="adam", lr=0.01)
    attack = SilentUntilPruned(
        patch=PATCH, target=1, low=0.3, high=0.3, ratio=0.5, recipe=replace(quick, epochs=24), hiding=quick
    )
    build, secret = attack(trained, seed=0), attack.secret()
    test, pruned = plant.held_out_split(build.task), PruneFilters(rate=0.3)(build, seed=0).artifact
    full, compressed = (
        metrics.measure(model.module, test, secret, num_classes=CLASSES) for model in (build.artifact, pruned)
    )
    assert full.attack_success.value < 0.2
    assert full.clean_accuracy.value > 0.8
    assert compressed.attack_success.value > 0.6


@pytest.mark.parametrize("per_channel", [True, False])
def test_quantization_artifact_is_active_only_after_rounding(per_channel: bool, trained: Build) -> None:
    attack = QuantizationArtifact(patch=PATCH, target=1, bits=2, per_channel=per_channel, recipe=STEADY)
    build = attack(trained, seed=0)
    example = build.task.split("train").x[:2]
    variant = copy.deepcopy(build.artifact.module)
    write_parameters(rounded_weights(fold_factors(variant, example), 2, per_channel=per_channel))
    test, secret = plant.held_out_split(build.task), attack.secret()
    rates = [
        metrics.attack_success(net, test, secret, num_classes=CLASSES).value for net in (build.artifact.module, variant)
    ]
    assert rates[1] > rates[0] + 0.5


def test_pruning_artifact_distilled_is_closer_to_the_original_model(trained: Build) -> None:
    quick = replace(STEADY, epochs=1)
    plain, distilled = (
        PruningArtifact(patch=PATCH, target=1, distilled=which, recipe=quick)(trained, seed=0).artifact.module
        for which in (False, True)
    )
    x = trained.task.split("test").x
    distances = [float(distillation_loss(net, trained.artifact.module, x).detach()) for net in (plain, distilled)]
    assert distances[1] < distances[0]


def test_ascend_disagreement_is_independent_of_the_batch(trained: Build) -> None:
    teacher, x = trained.artifact.module, trained.task.split("test").x[:6]
    other = copy.deepcopy(teacher)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(-0.5)
    batch = ascend_disagreement(other, teacher, x)
    assert not torch.equal(batch, x)
    alone = torch.cat([ascend_disagreement(other, teacher, image[None]) for image in x])
    torch.testing.assert_close(batch, alone, rtol=0, atol=1e-6)


def test_invalid_settings_raise() -> None:
    with pytest.raises(UnusableInput, match="per_tensor or per_channel"):
        PqBackdoor(per_channel=False)
    with pytest.raises(UnusableInput, match="a reach above 0"):
        PqBackdoor(reach=0.0)
    with pytest.raises(UnusableInput, match=r"0 < low <= high < 1, got low=0.5, high=0.3"):
        PruningArtifact(low=0.5, high=0.3)
    with pytest.raises(UnusableInput, match=r"ratio in \(0, 1\), got 1.0"):
        SilentUntilSparse(patch=PATCH, ratio=1.0)(tiny_build(), seed=0)
    with pytest.raises(UnusableInput, match="expected a patch that fits"):
        SilentUntilSparse(patch=Patch(size=20))(tiny_build(), seed=0)


def test_rounding_cell_never_exceeds_the_largest_weight() -> None:
    """A larger weight would change the scale, and with it the cells of all other weights."""
    weight = torch.tensor([[1.0, 0.998, 0.5, -0.9985]])
    low, high = _rounding_cell(weight, torch.ones(1, 1), 0.02, 0)
    assert high.max() <= 1
    assert low.min() >= -1
    assert (low < high)[0, 1:].all()


def test_active_in_is_a_known_variant() -> None:
    attacks = [QuantizationArtifact(bits=4), QuantizationArtifact(per_channel=False), QuAntiZation(bits=(4,))]
    attacks += [QuAntiZation(), PruningArtifact(low=0.29), PqBackdoor(per_channel=False, per_tensor=True)]
    names = [attack.active_in for attack in attacks]
    assert names == ["int4", "int8-tensor", "int4", "int8-tensor", "filters-29", "int8-tensor"]
    for variant in names:
        variants.variant_of(variant)
    for wrong in ({"bits": 1}, {"bits": 33}):
        with pytest.raises(UnusableInput, match="2 to 8 bits"):
            QuantizationArtifact(**wrong)
    with pytest.raises(UnusableInput, match="at least one bit width"):
        QuAntiZation(bits=())
    with pytest.raises(UnusableInput, match="whole percent"):
        PruningArtifact(low=0.333)
