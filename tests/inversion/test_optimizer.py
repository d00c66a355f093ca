"""Tests of the optimizer of candidate triggers."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from support.toys import SHAPE, toy
from torch import Tensor

from assay.core.errors import Unmeasurable
from assay.core.model import digest_of_module
from assay.inversion import optimizer
from assay.inversion.families import AdditiveFamily, Family, FrequencyFamily, MaskFamily, WarpFamily
from assay.inversion.optimizer import COST_FACTOR, Candidates, Steps, advance, initialize
from assay.inversion.run import CleanImages

FAMILIES: list[Family] = [MaskFamily(), AdditiveFamily(), FrequencyFamily(), WarpFamily()]
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def optimize_toy(
    family: Family, allowed: Tensor, *, target: int | None = 2, steps: int = 60, seed: int = 0
) -> Candidates:
    model, x, y = toy(allowed.shape[1], target)
    generator = torch.Generator().manual_seed(seed)
    candidates = initialize(family, allowed, SHAPE, generator)
    advance(model, family, candidates, CleanImages(x, y), Steps(steps, 16, generator))
    return candidates


def one_per_class(classes: int) -> Tensor:
    return torch.eye(classes, dtype=torch.bool)


def test_initial_candidates_have_no_success() -> None:
    candidates = initialize(MaskFamily(), one_per_class(4), SHAPE, torch.Generator().manual_seed(0))
    assert candidates.step == 0
    assert bool(candidates.best_size.isinf().all())
    assert candidates.reached.tolist() == [0, 1, 2, 3]
    moments = (*candidates.first_moment, *candidates.second_moment)
    assert all(len(p) == 4 for p in (*candidates.parameters, *moments, *candidates.best))


def test_planted_class_needs_the_smallest_mask() -> None:
    candidates = optimize_toy(MaskFamily(), one_per_class(4))
    assert int(candidates.best_size.argmin()) == int(candidates.level.argmin()) == 2
    assert float(candidates.best_size[2]) < 0.6 * float(candidates.best_size[[0, 1, 3]].min())


def test_best_trigger_works_and_has_best_size() -> None:
    family = MaskFamily()
    candidates = optimize_toy(family, one_per_class(4))
    model, x, y = toy(4, 2)
    assert torch.allclose(family.size(candidates.best), candidates.best_size)
    with torch.no_grad():
        triggered = family.apply(tuple(p[2:3] for p in candidates.best), x[y != 2])[0]
        assert float((model(triggered).argmax(1) == 2).float().mean()) > 0.8


def test_candidate_of_a_group_pursues_its_easiest_class() -> None:
    allowed = torch.tensor([[True, False, True, False], [False, True, False, True]])
    candidates = optimize_toy(MaskFamily(), allowed)
    assert int(candidates.reached[0]) == 2
    assert int(candidates.reached[1]) in (1, 3)
    assert float(candidates.log_likelihood[0]) > float(candidates.log_likelihood[1])


def test_candidate_of_all_classes_finds_planted_class() -> None:
    assert optimize_toy(MaskFamily(), torch.ones(1, 4, dtype=torch.bool)).reached.tolist() == [2]


@every_family
def test_same_seed_gives_same_triggers(family: Family) -> None:
    first, second, other = (optimize_toy(family, one_per_class(4), steps=8, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters, second.parameters, strict=True))
    assert torch.equal(first.level, second.level)
    assert not torch.equal(first.parameters[0], other.parameters[0])


@every_family
def test_model_and_images_stay_unchanged(family: Family) -> None:
    model, x, y = toy(4, 2)
    before, images = digest_of_module(model), x.clone()
    generator = torch.Generator().manual_seed(0)
    candidates = initialize(family, one_per_class(4), SHAPE, generator)
    advance(model, family, candidates, CleanImages(x, y), Steps(5, 16, generator))
    assert digest_of_module(model) == before
    assert torch.equal(x, images)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    state = (candidates.cost, candidates.level, candidates.success)
    assert not any(p.requires_grad for p in (*candidates.parameters, *candidates.best, *state))


def test_two_short_runs_equal_one_long_run() -> None:
    family, (model, x, y) = MaskFamily(), toy(4, 2)
    whole = optimize_toy(family, one_per_class(4), steps=10)
    generator = torch.Generator().manual_seed(0)
    candidates = initialize(family, one_per_class(4), SHAPE, generator)
    for _ in range(2):
        advance(model, family, candidates, CleanImages(x, y), Steps(5, 16, generator))
    assert candidates.step == whole.step == 10
    assert torch.equal(candidates.parameters[0], whole.parameters[0])


@pytest.mark.parametrize("stop", [0, 3])
def test_stop_callback_ends_the_steps(stop: int) -> None:
    model, x, y = toy(4, 2)
    generator = torch.Generator().manual_seed(0)
    candidates = initialize(MaskFamily(), one_per_class(4), SHAPE, generator)
    steps = Steps(20, 8, generator, should_continue=lambda: candidates.step < stop)
    advance(model, MaskFamily(), candidates, CleanImages(x, y), steps)
    assert candidates.step == stop


def test_size_penalty_follows_success() -> None:
    free = optimize_toy(MaskFamily(), one_per_class(4), steps=1)
    assert free.cost.tolist() == pytest.approx([MaskFamily.size_penalty / COST_FACTOR] * 4)
    bounded = optimize_toy(FrequencyFamily(), one_per_class(4), steps=5)
    assert bounded.cost.tolist() == [0.0] * 4


def test_images_of_the_target_class_do_not_count() -> None:
    model, x, _ = toy(4, 2)
    generator = torch.Generator().manual_seed(0)
    candidates = initialize(MaskFamily(), one_per_class(4)[:3], SHAPE, generator)
    all_of_the_target = torch.zeros(len(x), dtype=torch.int64)
    advance(model, MaskFamily(), candidates, CleanImages(x, all_of_the_target), Steps(5, 16, generator))
    assert bool(candidates.best_size[0].isinf())
    assert float(candidates.success[0]) == 0.0


@every_family
def test_results_do_not_depend_on_the_batches(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    for count in (1, 2, 4):  # candidates with gradients in memory at a time
        monkeypatch.setattr(optimizer, "batch_size_of", lambda x, count=count: 16 * count)
        batches.append(optimize_toy(family, one_per_class(4), steps=5))
    for other in batches[1:]:
        assert torch.allclose(other.log_likelihood, batches[0].log_likelihood, atol=1e-5)
        for one, two in zip(other.parameters, batches[0].parameters, strict=True):
            assert torch.allclose(one, two, atol=1e-4)


def test_one_batch_of_images_has_gradients_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = toy(4, 2)
    monkeypatch.setattr(optimizer, "batch_size_of", lambda x: 32)
    sizes = []
    handle = model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    generator = torch.Generator().manual_seed(0)
    candidates = initialize(MaskFamily(), one_per_class(4), SHAPE, generator)
    advance(model, MaskFamily(), candidates, CleanImages(x, y), Steps(1, 16, generator))
    handle.remove()
    assert sizes == [32, 32]


@every_family
def test_scale_of_gradients_changes_no_digit(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    scaled = optimize_toy(family, one_per_class(4), steps=10)
    monkeypatch.setattr(optimizer, "GRADIENT_SCALE", 1.0)
    plain = optimize_toy(family, one_per_class(4), steps=10)
    assert all(torch.equal(one, two) for one, two in zip(scaled.parameters, plain.parameters, strict=True))


def smallest_gradient(margin: float) -> float:
    """Return the smallest gradient but 0 of the logits of a model that is sure of its class by ``margin``."""
    smallest: list[float] = []

    class Sure(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = margin * torch.tensor([1.0, 0.0, 0.0, 0.0]) + x.mean(dim=(1, 2, 3))[:, None] * torch.arange(4)
            logits.register_hook(lambda gradient: smallest.append(float(gradient[gradient != 0].abs().min())))
            return logits

    x, generator = torch.rand(16, *SHAPE), torch.Generator().manual_seed(0)
    candidates = initialize(AdditiveFamily(), one_per_class(4)[:1], SHAPE, generator)
    images = CleanImages(x, torch.ones(16, dtype=torch.int64))
    with suppress(Unmeasurable):  # gradients that small move no trigger
        advance(Sure(), AdditiveFamily(), candidates, images, Steps(1, 16, generator))
    return min(smallest)


def test_gradients_of_a_saturated_model_are_no_denormal_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    smallest_normal = torch.finfo(torch.float32).tiny
    assert smallest_gradient(88.0) >= smallest_normal
    monkeypatch.setattr(optimizer, "GRADIENT_SCALE", 1.0)
    assert smallest_gradient(88.0) < smallest_normal
