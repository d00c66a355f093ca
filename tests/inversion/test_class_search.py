from __future__ import annotations

import pytest
import torch
from support.toys import patched, toy
from torch import Tensor, nn

from assay.core.model import digest_of_module
from assay.inversion.class_search import CHECKED_IMAGES, ClassSearchResult, SearchBudget, search_classes
from assay.inversion.families import AdditiveFamily, Family, FrequencyFamily, MaskFamily, WarpFamily

FAMILIES: list[Family] = [MaskFamily(), AdditiveFamily(), FrequencyFamily(), WarpFamily()]
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def hunted(
    classes: int, target: int | None, family: Family | None = None, *, seed: int = 0, effort: SearchBudget | None = None
) -> ClassSearchResult:
    """With the planted class at the end of the ranking, where no shortlist would take it unseen."""
    net, x, y = toy(classes, target)
    ranking = torch.tensor([k for k in range(classes) if k != target] + ([target] if target is not None else []))
    return search_classes(net, family or MaskFamily(), x, y, ranking, effort=effort or SearchBudget(), seed=seed)


@pytest.mark.parametrize("target", range(4))
def test_a_planted_patch_is_found_with_its_target(target: int) -> None:
    found = hunted(4, target)
    assert found.target == target
    assert found.score > 0.7
    assert sorted(found.classes.tolist()) == [0, 1, 2, 3]
    assert float(found.success[0]) > 0.5


def test_the_toys_trigger_is_what_it_says() -> None:
    net, x, y = toy(4, 2)
    clean, _, _ = toy(4, None)
    with torch.no_grad():
        assert bool((net(patched(x)).argmax(1) == 2).all())
        assert bool((clean(patched(x)).argmax(1) == y).float().mean() > 0.9)


@pytest.mark.parametrize("seed", range(3))
def test_a_net_whose_classes_are_all_alike_scores_low(seed: int) -> None:
    assert 0 <= hunted(4, None, seed=seed).score < 0.3


def test_the_mask_lies_where_the_trigger_is() -> None:
    found = hunted(4, 2)
    mask = found.parameters[0].sigmoid()[0, 0]
    assert float(mask[6:, 6:].mean()) > 4 * float(mask[:6, :6].mean())


@every_family
def test_same_seed_same_hunt(family: Family) -> None:
    effort = SearchBudget(screening_steps=3, finalists=3, steps=6)
    first, second = (hunted(4, 1, family, seed=3, effort=effort) for _ in range(2))
    for a, b in ((first.classes, second.classes), (first.ease, second.ease), (first.sizes, second.sizes)):
        assert torch.equal(a, b)
    assert first.score == second.score


@every_family
def test_a_hunt_never_changes_the_net(family: Family) -> None:
    net, x, y = toy(4, 1)
    before = digest_of_module(net)
    search_classes(
        net, family, x, y, torch.arange(4), effort=SearchBudget(screening_steps=2, finalists=3, steps=3), seed=0
    )
    assert digest_of_module(net) == before
    assert all(p.grad is None for p in net.parameters())


@every_family
def test_what_a_hunt_says_is_finite_and_sorted(family: Family) -> None:
    found = hunted(20, 7, family, effort=SearchBudget(screening_steps=2, steps=4, ranking_steps=2))
    assert len(found.classes) == len(set(found.classes.tolist())) == SearchBudget().finalists
    assert len(found.ease) == len(found.sizes) == len(found.success) == SearchBudget().finalists
    assert found.steps == 4
    assert bool(found.ease.isfinite().all() and found.sizes.isfinite().all())
    assert found.ease.tolist() == sorted(found.ease.tolist(), reverse=True)
    assert bool(((found.success >= 0) & (found.success <= 1)).all())
    assert all(len(p) == 1 for p in found.parameters)


@pytest.mark.parametrize("target", [0, 123])
def test_among_200_classes_the_planted_one_gets_through_the_shortlist(target: int) -> None:
    found = hunted(200, target)
    assert found.target == target
    assert found.score > 0.7
    assert len(found.classes) == SearchBudget().finalists


def test_among_200_clean_classes_none_stands_out() -> None:
    assert hunted(200, None).score < 0.4


class Counted(nn.Module):
    """Counts the pictures that go through a net."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.calls = 0
        self.pictures = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.pictures += len(x)
        return self.net(x)


def test_the_cost_does_not_grow_with_the_number_of_classes() -> None:
    calls = []
    for classes in (30, 240):
        net, x, y = toy(classes, 5)
        counted = Counted(net)
        search_classes(
            counted,
            MaskFamily(),
            x[:48],
            y[:48],
            torch.arange(classes),
            effort=SearchBudget(screening_steps=2, steps=4, ranking_steps=3),
            seed=0,
        )
        calls.append((counted.calls, counted.pictures // 100))
    assert calls[0] == calls[1]


def test_few_classes_need_no_shortlist() -> None:
    net, x, y = toy(4, 1)
    counted = Counted(net)
    search_classes(
        counted, MaskFamily(), x, y, torch.arange(4), effort=SearchBudget(screening_steps=2, steps=5), seed=0
    )
    assert counted.calls == 5 + 4  # steps, and each arm's check


def test_only_the_finalists_are_searched_to_the_end() -> None:
    net, x, y = toy(6, 1)
    counted = Counted(net)
    effort = SearchBudget(screening_steps=3, finalists=2, steps=10, batch=8)
    found = search_classes(counted, MaskFamily(), x, y, torch.arange(6), effort=effort, seed=0)
    assert len(found.classes) == 2
    assert found.steps == 10
    checked = 2 * min(len(x), CHECKED_IMAGES)
    assert counted.pictures == 8 * (3 * 6 + 7 * 2) + checked


@every_family
def test_with_as_many_finalists_as_classes_none_is_dropped(family: Family) -> None:
    effort = SearchBudget(screening_steps=2, finalists=4, steps=4)
    assert sorted(hunted(4, 1, family, effort=effort).classes.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("family", [MaskFamily(), AdditiveFamily()], ids=lambda family: family.name)
def test_the_screening_keeps_the_planted_class(family: Family) -> None:
    """Alone in the final, it must be the one that the screening put first."""
    effort = SearchBudget(finalists=1, steps=21)
    assert hunted(4, 2, family, effort=effort).classes.tolist() == [2]


def test_fewer_steps_than_a_screening_are_all_there_are() -> None:
    net, x, y = toy(4, 1)
    shares: list[float] = []

    def tick(share: float) -> bool:
        shares.append(share)
        return True

    found = search_classes(net, MaskFamily(), x, y, torch.arange(4), effort=SearchBudget(steps=5), seed=0, tick=tick)
    assert found.steps == len(shares) == 5
    assert shares[-2] < 1


def test_tick_false_ends_the_hunt_at_once() -> None:
    net, x, y = toy(4, 1)
    found = search_classes(
        net, MaskFamily(), x, y, torch.arange(4), effort=SearchBudget(), seed=0, tick=lambda share: False
    )
    assert found.steps == 0
    assert bool(found.ease.isfinite().all() and found.sizes.isfinite().all())


@pytest.mark.parametrize("at", [3, 20, 24])
def test_a_hunt_that_runs_out_of_time_says_how_far_it_came(at: int) -> None:
    """In the screening, right after it, in the final."""
    net, x, y = toy(6, 1)
    asked = 0

    def tick(share: float) -> bool:
        nonlocal asked
        asked += 1
        return asked <= at

    found = search_classes(
        net, MaskFamily(), x, y, torch.arange(6), effort=SearchBudget(finalists=2), seed=0, tick=tick
    )
    assert found.steps == at < SearchBudget().steps
    assert len(found.classes) == 2


@pytest.mark.parametrize(("classes", "calls"), [(4, 6), (11, 8), (30, 8)])
def test_tick_hears_a_share_that_only_grows(classes: int, calls: int) -> None:
    net, x, y = toy(classes, 1)
    shares: list[float] = []

    def tick(share: float) -> bool:
        shares.append(share)
        return True

    effort = SearchBudget(screening_steps=3, steps=6, ranking_steps=2)
    search_classes(net, MaskFamily(), x, y, torch.arange(classes), effort=effort, seed=0, tick=tick)
    assert len(shares) == calls
    assert shares == sorted(set(shares))
    assert 0 < shares[0] < 0.5
    assert shares[-2] < 1
    assert shares[-1] == pytest.approx(1)
    assert shares[-1] <= 1


@pytest.mark.parametrize("at", [0, 3])
def test_time_that_ends_in_the_ranking_ends_the_hunt_there(at: int) -> None:
    net, x, y = toy(30, 1)
    counted, asked = Counted(net), 0

    def tick(share: float) -> bool:
        nonlocal asked
        asked += 1
        return asked <= at

    found = search_classes(counted, MaskFamily(), x, y, torch.arange(30), effort=SearchBudget(), seed=0, tick=tick)
    assert found.steps == 0
    assert counted.calls == at + SearchBudget().finalists  # and each finalist's check
    assert bool(found.ease.isfinite().all() and found.sizes.isfinite().all())


def test_a_class_that_all_checked_pictures_have_is_no_surprise() -> None:
    net, x, y = toy(4, 1)
    sorted_by_class = torch.cat([x[y == 0]] * 9 + [x[y == 1]])  # the first 128 of one class
    predicted = torch.cat([y[y == 0]] * 9 + [y[y == 1]])
    found = search_classes(
        net,
        FrequencyFamily(),
        sorted_by_class,
        predicted,
        torch.arange(4),
        effort=SearchBudget(screening_steps=1, steps=2),
        seed=0,
    )
    assert bool(found.success.isfinite().all())
    assert found.score == found.score
