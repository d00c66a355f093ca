from __future__ import annotations

import pytest
import torch
from support.toys import SHAPE, toy
from torch import Tensor

from assay.core.model import digest_of_module
from assay.inversion.families import AdditiveFamily, Family, FrequencyFamily, MaskFamily, WarpFamily
from assay.inversion.optimizer import COST_FACTOR, Candidates, advance, initialize

FAMILIES: list[Family] = [MaskFamily(), AdditiveFamily(), FrequencyFamily(), WarpFamily()]
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def searched(
    family: Family,
    allowed: Tensor,
    *,
    target: int | None = 2,
    steps: int = 60,
    seed: int = 0,
) -> Candidates:
    net, x, y = toy(allowed.shape[1], target)
    generator = torch.Generator().manual_seed(seed)
    arms = initialize(family, allowed, SHAPE, generator)
    advance(net, family, arms, x, y, steps=steps, batch=16, generator=generator)
    return arms


def one_each(classes: int) -> Tensor:
    return torch.eye(classes, dtype=torch.bool)


def test_fresh_arms_have_not_worked_yet() -> None:
    arms = initialize(MaskFamily(), one_each(4), SHAPE, torch.Generator().manual_seed(0))
    assert arms.step == 0
    assert bool(arms.best_size.isinf().all())
    assert arms.reached.tolist() == [0, 1, 2, 3]
    assert all(len(p) == 4 for p in (*arms.parameters, *arms.first, *arms.second, *arms.best))


def test_the_planted_class_needs_the_smallest_mask() -> None:
    arms = searched(MaskFamily(), one_each(4))
    assert int(arms.best_size.argmin()) == int(arms.level.argmin()) == 2
    assert float(arms.best_size[2]) < 0.6 * float(arms.best_size[[0, 1, 3]].min())


def test_the_best_trigger_works_and_has_the_size_that_is_said() -> None:
    family = MaskFamily()
    arms = searched(family, one_each(4))
    net, x, y = toy(4, 2)
    assert torch.allclose(family.size(arms.best), arms.best_size)
    with torch.no_grad():
        triggered = family.apply(tuple(p[2:3] for p in arms.best), x[y != 2])[0]
        assert float((net(triggered).argmax(1) == 2).float().mean()) > 0.8


def test_an_arm_over_a_group_goes_for_its_easiest_class() -> None:
    allowed = torch.tensor([[True, False, True, False], [False, True, False, True]])
    arms = searched(MaskFamily(), allowed)
    assert int(arms.reached[0]) == 2
    assert int(arms.reached[1]) in (1, 3)
    assert float(arms.log_likelihood[0]) > float(arms.log_likelihood[1])


def test_an_arm_over_all_classes_finds_the_planted_one() -> None:
    assert searched(MaskFamily(), torch.ones(1, 4, dtype=torch.bool)).reached.tolist() == [2]


@every_family
def test_same_seed_same_search(family: Family) -> None:
    first, second, other = (searched(family, one_each(4), steps=8, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters, second.parameters, strict=True))
    assert torch.equal(first.level, second.level)
    assert not torch.equal(first.parameters[0], other.parameters[0])


@every_family
def test_the_net_and_the_pictures_stay_as_they_were(family: Family) -> None:
    net, x, y = toy(4, 2)
    before, pictures = digest_of_module(net), x.clone()
    generator = torch.Generator().manual_seed(0)
    arms = initialize(family, one_each(4), SHAPE, generator)
    advance(net, family, arms, x, y, steps=5, batch=16, generator=generator)
    assert digest_of_module(net) == before
    assert torch.equal(x, pictures)
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert not any(p.requires_grad for p in (*arms.parameters, *arms.best, arms.cost, arms.level, arms.success))


def test_two_halves_are_one_whole() -> None:
    family, (net, x, y) = MaskFamily(), toy(4, 2)
    whole = searched(family, one_each(4), steps=10)
    generator = torch.Generator().manual_seed(0)
    arms = initialize(family, one_each(4), SHAPE, generator)
    for _ in range(2):
        advance(net, family, arms, x, y, steps=5, batch=16, generator=generator)
    assert arms.step == whole.step == 10
    assert torch.equal(arms.parameters[0], whole.parameters[0])


@pytest.mark.parametrize("stop", [0, 3])
def test_tick_stops_the_search(stop: int) -> None:
    net, x, y = toy(4, 2)
    generator = torch.Generator().manual_seed(0)
    arms = initialize(MaskFamily(), one_each(4), SHAPE, generator)
    advance(
        net,
        MaskFamily(),
        arms,
        x,
        y,
        steps=20,
        batch=8,
        generator=generator,
        tick=lambda: arms.step < stop,
    )
    assert arms.step == stop


def test_the_weight_of_the_size_follows_success() -> None:
    arms = searched(MaskFamily(), one_each(4), steps=1)
    assert arms.cost.tolist() == pytest.approx([MaskFamily.pressure / COST_FACTOR] * 4)
    bounded = searched(FrequencyFamily(), one_each(4), steps=5)
    assert bounded.cost.tolist() == [0.0] * 4


def test_pictures_that_have_the_class_already_do_not_count() -> None:
    """A net that answers one class to everything has not been triggered."""
    net, x, _ = toy(4, 2)
    generator = torch.Generator().manual_seed(0)
    arms = initialize(MaskFamily(), one_each(4)[:1], SHAPE, generator)
    nothing_counts = torch.zeros(len(x), dtype=torch.int64)
    advance(net, MaskFamily(), arms, x, nothing_counts, steps=5, batch=16, generator=generator)
    assert bool(arms.best_size.isinf().all())
    assert arms.success.tolist() == [0.0]
