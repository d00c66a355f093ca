"""Tests of the window search."""

from __future__ import annotations

import pytest
import torch
from support.toys import SHAPE, artifact_of, toy

from assay.core.dataset import Split
from assay.detectors import LocalPatch
from assay.detectors.budget import Budget
from assay.inversion.class_search import ClassSearchResult, class_logits
from assay.inversion.families import WindowFamily
from assay.inversion.optimizer import Candidates, Steps, advance, initialize
from assay.inversion.prepare import prepare
from assay.inversion.run import CleanImages, SearchRun
from assay.inversion.window_search import WindowSearchBudget, _WindowSearch, search_windows


def search_toy(
    classes: int, target: int | None, *, seed: int = 0, budget: WindowSearchBudget | None = None
) -> tuple[WindowFamily, ClassSearchResult]:
    model, x, y = toy(classes, target)
    run = SearchRun(budget or WindowSearchBudget(), seed)
    return search_windows(prepare(model, x[:2]), CleanImages(x, y), classes, run)


@pytest.mark.parametrize("target", range(4))
def test_search_finds_planted_patch_with_target_and_window(target: int) -> None:
    family, found = search_toy(4, target)
    assert found.target == target
    assert float(found.success[0]) > 0.9
    assert found.score > search_toy(4, None)[1].score + 1
    window = found.parameters[1][0, 0]
    assert float(window[6:, 6:].mean()) >= 0.5  # the patch covers rows and columns 6 and 7
    assert float(family.size(found.parameters)) == pytest.approx(4 / 64)


def test_search_covers_as_many_classes_as_the_budget() -> None:
    _, found = search_toy(30, 17)
    assert found.target == 17
    assert len(found.classes) == WindowSearchBudget().classes


def test_search_stops_after_the_screening_below_minimum_log_odds() -> None:
    low, high = WindowSearchBudget(min_log_odds=-30.0), WindowSearchBudget(min_log_odds=30.0)
    (_, complete), (_, stopped) = (search_toy(4, None, budget=budget) for budget in (low, high))
    assert (complete.stopped_early, complete.steps) == (False, low.window_steps + low.class_steps)
    assert (stopped.stopped_early, stopped.steps) == (True, high.screening_steps)
    assert stopped.score <= 0
    assert torch.equal(complete.reachability, search_toy(4, None)[1].reachability)


def test_search_stops_after_the_windows_without_an_outlier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_WindowSearch, "is_promising", lambda search, odds: False)
    _, found = search_toy(4, 2)
    assert (found.stopped_early, found.steps, found.target) == (True, WindowSearchBudget().window_steps, 2)


def test_only_leading_windows_go_on_after_the_screening(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = toy(4, 1)
    budget = WindowSearchBudget()
    advanced: list[tuple[int, int]] = []
    whole = _WindowSearch.advance

    def advance_and_note(search: _WindowSearch, candidates: Candidates, count: int, batch: int) -> None:
        advanced.append((len(candidates.cost), count))
        whole(search, candidates, count, batch)

    monkeypatch.setattr(_WindowSearch, "advance", advance_and_note)
    family, _ = search_windows(prepare(model, x[:2]), CleanImages(x, y), 4, SearchRun(budget, 0))
    windows = len(family.windows(SHAPE))
    (screened, first), (leading, second), (classes, third) = advanced
    assert (screened, first) == (windows, budget.screening_steps)
    assert (leading <= 2 * 4, second) == (True, budget.window_steps - budget.screening_steps)
    assert (classes, third) == (4, budget.class_steps)


@pytest.mark.parametrize(
    ("odds", "goes_on"),
    [
        ([-2.1, -3.0, -4.0], False),
        ([-1.9, -3.0, -4.0], True),
        ([0.5, -3.0, -4.0], True),  # a single class with positive odds
        ([2.5, 1.9, 1.0], False),  # several, and none of them is an outlier
        ([7.5, 6.3, 1.5], True),  # two classes together
        ([float("nan"), 1.0, 1.0], False),
    ],
)
def test_search_goes_on_for_a_class_that_is_an_outlier(odds: list[float], goes_on: bool) -> None:
    model, x, y = toy(4, None)
    run = SearchRun(WindowSearchBudget(min_log_odds=-2.0, min_outlier_score=2.0), 0)
    search = _WindowSearch(model, CleanImages(x, y), 4, run, 0, class_logits(model))
    assert search.is_promising(torch.tensor(odds)) is goes_on


def test_same_seed_gives_same_result() -> None:
    (_, first), (_, second), (_, other) = (search_toy(4, 1, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.reachability, second.reachability)
    assert not torch.equal(first.reachability, other.reachability)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 28, 28), (3, 32, 48), (3, 3, 5)], ids=str)
@pytest.mark.parametrize("overlap", [True, False])
def test_windows_cover_the_image(shape: tuple[int, int, int], overlap: bool) -> None:
    windows = WindowFamily(overlap=overlap).windows(shape)
    assert windows.shape[1:] == (1, *shape[1:])
    assert float(windows.amax(0).min()) == 1
    side = max(1, min(shape[1:]) // 4)
    assert windows.sum(dim=(1, 2, 3)).tolist() == [side * side] * len(windows)
    assert len(windows.flatten(1).unique(dim=0)) == len(windows)


def test_steps_change_the_pattern_but_not_the_window() -> None:
    model, x, y = toy(4, 1)
    family, generator = WindowFamily(), torch.Generator().manual_seed(0)
    candidates = initialize(family, torch.ones(5, 4, dtype=torch.bool), SHAPE, generator)
    pattern, window = candidates.parameters
    advance(prepare(model, x[:2]), family, candidates, CleanImages(x, y), Steps(3, 4, generator))
    assert torch.equal(candidates.parameters[1], window)
    assert not torch.equal(candidates.parameters[0], pattern)
    triggered = family.apply(candidates.parameters, x[:2])
    outside = window[:, None].expand_as(triggered) == 0
    assert torch.equal(triggered[outside], x[:2].expand_as(triggered)[outside])


def test_large_images_get_a_smaller_budget() -> None:
    small, large = WindowSearchBudget().at((3, 32, 32)), WindowSearchBudget().at((3, 224, 224))
    assert small == WindowSearchBudget()
    assert large.window_steps < small.window_steps
    assert not large.overlap


@pytest.mark.parametrize("calls", [1, 5, 15])
def test_detector_abstains_if_budget_ends(calls: int) -> None:
    class LimitedBudget(Budget):
        remaining = calls

        def left(self) -> float:
            self.remaining -= 1
            return float(self.remaining >= 0)

    model, x, _ = toy(4, 1)
    finding = LocalPatch()(artifact_of(model, 4), Split(x, None), budget=LimitedBudget())
    assert finding.outcome.status == "abstained"
    assert f"{calls - 1} of 30 steps" in finding.reason


def test_last_stage_refines_only_the_easiest_classes() -> None:
    refining = WindowSearchBudget(refined=2, final_steps=30)
    (_, before), (_, after) = search_toy(4, 2), search_toy(4, 2, budget=refining)
    assert after.steps == before.steps + 30 == refining.steps
    assert after.target == before.target == 2
    assert torch.equal(after.classes, before.classes)
    assert after.reachability[1] > before.reachability[1]  # the log odds of the first class are at the maximum already
    assert torch.equal(after.reachability[2:], before.reachability[2:])
