"""Tests of the class search."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from support.toys import add_trigger, toy
from torch import Tensor, nn

from assay.core.model import digest_of_module
from assay.inversion.class_search import ClassSearchResult, SearchBudget, search_classes
from assay.inversion.families import AdditiveFamily, Family, FrequencyFamily, MaskFamily, WarpFamily
from assay.inversion.run import CleanImages, SearchRun

FAMILIES: list[Family] = [MaskFamily(), AdditiveFamily(), FrequencyFamily(), WarpFamily()]
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def search_toy(
    classes: int, target: int | None, family: Family | None = None, *, seed: int = 0, budget: SearchBudget | None = None
) -> ClassSearchResult:
    """Search a toy model, with the planted class last in the ranking: no shortlist takes it by rank alone."""
    model, x, y = toy(classes, target)
    ranking = torch.tensor([k for k in range(classes) if k != target] + ([target] if target is not None else []))
    run = SearchRun(budget or SearchBudget(), seed)
    return search_classes(model, family or MaskFamily(), CleanImages(x, y), ranking, run)


@dataclass
class Clock:
    """Stop callback that allows ``limit`` calls and records the completed fractions."""

    limit: int = 10_000
    fractions: list[float] = field(default_factory=list)

    def __call__(self, fraction: float) -> bool:
        self.fractions.append(fraction)
        return len(self.fractions) <= self.limit


class CountingModel(nn.Module):
    """Counts the calls of a model and the images in them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.calls = 0
        self.images = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.images += len(x)
        return self.net(x)


@pytest.mark.parametrize("target", range(4))
def test_search_finds_planted_patch_and_target(target: int) -> None:
    found = search_toy(4, target)
    assert found.target == target
    assert found.score > 0.7
    assert sorted(found.classes.tolist()) == [0, 1, 2, 3]
    assert float(found.success[0]) > 0.5


def test_toy_trigger_works_on_planted_model_only() -> None:
    planted, x, y = toy(4, 2)
    clean, _, _ = toy(4, None)
    with torch.no_grad():
        assert bool((planted(add_trigger(x)).argmax(1) == 2).all())
        assert bool((clean(add_trigger(x)).argmax(1) == y).float().mean() > 0.9)


@pytest.mark.parametrize("seed", range(3))
def test_clean_model_with_similar_classes_scores_low(seed: int) -> None:
    assert 0 <= search_toy(4, None, seed=seed).score < 0.3


def test_mask_covers_the_trigger() -> None:
    found = search_toy(4, 2)
    mask = found.parameters[0].sigmoid()[0, 0]
    assert float(mask[6:, 6:].mean()) > 4 * float(mask[:6, :6].mean())


@every_family
def test_same_seed_gives_same_result(family: Family) -> None:
    budget = SearchBudget(screening_steps=3, refined=3, steps=6)
    first, second = (search_toy(4, 1, family, seed=3, budget=budget) for _ in range(2))
    assert torch.equal(first.classes, second.classes)
    assert torch.equal(first.reachability, second.reachability)
    assert torch.equal(first.sizes, second.sizes)
    assert first.score == second.score


@every_family
def test_search_leaves_model_unchanged(family: Family) -> None:
    model, x, y = toy(4, 1)
    before = digest_of_module(model)
    run = SearchRun(SearchBudget(screening_steps=2, refined=3, steps=3), 0)
    search_classes(model, family, CleanImages(x, y), torch.arange(4), run)
    assert digest_of_module(model) == before
    assert all(p.grad is None for p in model.parameters())


@every_family
def test_result_is_finite_and_sorted(family: Family) -> None:
    found = search_toy(20, 7, family, budget=SearchBudget(screening_steps=2, steps=4, ranking_steps=2))
    assert len(found.classes) == len(set(found.classes.tolist())) == SearchBudget().refined
    assert len(found.reachability) == len(found.sizes) == len(found.success) == SearchBudget().refined
    assert found.steps == 4
    assert bool(found.reachability.isfinite().all() and found.sizes.isfinite().all())
    assert found.reachability.tolist() == sorted(found.reachability.tolist(), reverse=True)
    assert bool(((found.success >= 0) & (found.success <= 1)).all())
    assert all(len(p) == 1 for p in found.parameters)


@pytest.mark.parametrize("target", [0, 123])
def test_shortlist_of_200_classes_contains_planted_class(target: int) -> None:
    found = search_toy(200, target)
    assert found.target == target
    assert found.score > 0.7
    assert len(found.classes) == SearchBudget().refined


def test_clean_model_with_200_classes_scores_low() -> None:
    assert search_toy(200, None).score < 0.4


def test_cost_is_independent_of_class_count() -> None:
    costs = []
    for classes in (30, 240):
        model, x, y = toy(classes, 5)
        counting = CountingModel(model)
        run = SearchRun(SearchBudget(screening_steps=2, steps=4, ranking_steps=3), 0)
        search_classes(counting, MaskFamily(), CleanImages(x[:48], y[:48]), torch.arange(classes), run)
        costs.append((counting.calls, counting.images // 100))
    assert costs[0] == costs[1]


def test_few_classes_skip_the_ranking_search() -> None:
    model, x, y = toy(4, 1)
    counting = CountingModel(model)
    run = SearchRun(SearchBudget(screening_steps=2, steps=5), 0)
    search_classes(counting, MaskFamily(), CleanImages(x, y), torch.arange(4), run)
    assert counting.calls == 5 + 4  # steps, and the check of each candidate


def test_only_refined_classes_get_all_steps() -> None:
    model, x, y = toy(6, 1)
    counting = CountingModel(model)
    run = SearchRun(SearchBudget(screening_steps=3, refined=2, steps=10, batch=8), 0)
    found = search_classes(counting, MaskFamily(), CleanImages(x, y), torch.arange(6), run)
    assert len(found.classes) == 2
    assert found.steps == 10
    checked = 2 * min(len(x), SearchBudget().checked)
    assert counting.images == 8 * (3 * 6 + 7 * 2) + checked


@every_family
def test_refining_all_classes_drops_none(family: Family) -> None:
    budget = SearchBudget(screening_steps=2, refined=4, steps=4)
    assert sorted(search_toy(4, 1, family, budget=budget).classes.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("family", [MaskFamily(), AdditiveFamily()], ids=lambda family: family.name)
def test_screening_ranks_planted_class_first(family: Family) -> None:
    budget = SearchBudget(refined=1, steps=21)  # refines only the best class of the screening
    assert search_toy(4, 2, family, budget=budget).classes.tolist() == [2]


def test_budget_smaller_than_screening_limits_steps() -> None:
    model, x, y = toy(4, 1)
    clock = Clock()
    run = SearchRun(SearchBudget(steps=5), 0, clock)
    found = search_classes(model, MaskFamily(), CleanImages(x, y), torch.arange(4), run)
    assert found.steps == len(clock.fractions) == 5
    assert clock.fractions[-2] < 1


def test_stop_callback_stops_before_first_step() -> None:
    model, x, y = toy(4, 1)
    run = SearchRun(SearchBudget(), 0, Clock(limit=0))
    found = search_classes(model, MaskFamily(), CleanImages(x, y), torch.arange(4), run)
    assert found.steps == 0
    assert bool(found.reachability.isfinite().all() and found.sizes.isfinite().all())


@pytest.mark.parametrize("limit", [3, 20, 24])  # in the screening, directly after it, in the refinement
def test_stopped_search_reports_its_steps(limit: int) -> None:
    model, x, y = toy(6, 1)
    run = SearchRun(SearchBudget(refined=2), 0, Clock(limit))
    found = search_classes(model, MaskFamily(), CleanImages(x, y), torch.arange(6), run)
    assert found.steps == limit < SearchBudget().steps
    assert len(found.classes) == 2


def test_search_without_success_stops_after_screening() -> None:
    model, x, y = toy(6, None)
    run = SearchRun(SearchBudget(screening_steps=2, steps=5, min_success=1.1), 0)
    found = search_classes(model, MaskFamily(), CleanImages(x, y), torch.arange(6), run)
    assert (found.stopped_early, found.steps, found.score) == (True, 2, 0.0)


@pytest.mark.parametrize(("classes", "calls"), [(4, 6), (11, 8), (30, 8)])
def test_progress_increases_to_one(classes: int, calls: int) -> None:
    model, x, y = toy(classes, 1)
    clock = Clock()
    run = SearchRun(SearchBudget(screening_steps=3, steps=6, ranking_steps=2), 0, clock)
    search_classes(model, MaskFamily(), CleanImages(x, y), torch.arange(classes), run)
    fractions = clock.fractions
    assert len(fractions) == calls
    assert fractions == sorted(set(fractions))
    assert 0 < fractions[0] < 0.5
    assert fractions[-2] < 1
    assert fractions[-1] == pytest.approx(1)
    assert fractions[-1] <= 1


@pytest.mark.parametrize("limit", [0, 3])
def test_time_limit_in_ranking_skips_later_steps(limit: int) -> None:
    model, x, y = toy(30, 1)
    counting = CountingModel(model)
    run = SearchRun(SearchBudget(), 0, Clock(limit))
    found = search_classes(counting, MaskFamily(), CleanImages(x, y), torch.arange(30), run)
    assert found.steps == 0
    assert counting.calls == limit + SearchBudget().refined  # and the check of each refined class
    assert bool(found.reachability.isfinite().all() and found.sizes.isfinite().all())


def test_class_of_all_checked_images_gives_finite_result() -> None:
    model, x, y = toy(4, 1)
    sorted_by_class = torch.cat([x[y == 0]] * 9 + [x[y == 1]])  # the first 128 images have one class
    predicted = torch.cat([y[y == 0]] * 9 + [y[y == 1]])
    run = SearchRun(SearchBudget(screening_steps=1, steps=2), 0)
    found = search_classes(model, FrequencyFamily(), CleanImages(sorted_by_class, predicted), torch.arange(4), run)
    assert bool(found.success.isfinite().all())
    assert found.score == found.score
