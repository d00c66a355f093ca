from __future__ import annotations

import pytest
import torch
from support.toys import SHAPE, artifact_of, toy

from assay.core.dataset import Split
from assay.detectors import LocalPatch
from assay.detectors.budget import Budget
from assay.inversion.class_search import ClassSearchResult
from assay.inversion.families import WindowFamily
from assay.inversion.optimizer import advance, initialize
from assay.inversion.prepare import prepare
from assay.inversion.window_search import WindowSearchBudget, search_windows


def hunted(classes: int, target: int | None, *, seed: int = 0) -> tuple[WindowFamily, ClassSearchResult]:
    net, x, y = toy(classes, target)
    return search_windows(prepare(net, x[:2]), x, y, classes, search_budget=WindowSearchBudget(), seed=seed)


@pytest.mark.parametrize("target", range(4))
def test_a_planted_patch_is_found_with_its_target_and_its_place(target: int) -> None:
    family, found = hunted(4, target)
    assert found.target == target
    assert float(found.success[0]) > 0.9
    assert found.score > hunted(4, None)[1].score + 1
    window = found.parameters[1][0, 0]
    assert float(window[6:, 6:].mean()) >= 0.5  # the patch lies in rows and columns 6 and 7
    assert float(family.size(found.parameters)) == pytest.approx(4 / 64)


def test_among_many_classes_as_many_are_searched_as_the_effort_says() -> None:
    _, found = hunted(30, 17)
    assert found.target == 17
    assert len(found.classes) == WindowSearchBudget().classes


def test_where_no_window_leads_anywhere_the_search_ends_half_way() -> None:
    net, x, y = toy(4, None)
    hopeful, stopped_early = WindowSearchBudget(min_log_odds=-30.0), WindowSearchBudget(min_log_odds=30.0)
    whole, short = (
        search_windows(prepare(net, x[:2]), x, y, 4, search_budget=effort, seed=0)[1] for effort in (hopeful, stopped_early)
    )
    assert (whole.stopped_early, whole.steps) == (False, hopeful.window_steps + hopeful.class_steps)
    assert (short.stopped_early, short.steps) == (True, stopped_early.window_steps)
    assert short.score <= 0
    assert torch.equal(whole.reachability, hunted(4, None)[1].reachability)


def test_same_seed_same_hunt() -> None:
    (_, first), (_, second), (_, other) = hunted(4, 1, seed=3), hunted(4, 1, seed=3), hunted(4, 1, seed=4)
    assert torch.equal(first.reachability, second.reachability)
    assert not torch.equal(first.reachability, other.reachability)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 28, 28), (3, 32, 48), (3, 3, 5)], ids=str)
@pytest.mark.parametrize("overlap", [True, False])
def test_the_windows_cover_the_picture(shape: tuple[int, int, int], overlap: bool) -> None:
    windows = WindowFamily(overlap=overlap).windows(shape)
    assert windows.shape[1:] == (1, *shape[1:])
    assert float(windows.amax(0).min()) == 1
    side = max(1, min(shape[1:]) // 4)
    assert windows.sum(dim=(1, 2, 3)).tolist() == [side * side] * len(windows)
    assert len(windows.flatten(1).unique(dim=0)) == len(windows)


def test_a_window_stays_where_it_is_and_nothing_changes_outside() -> None:
    net, x, y = toy(4, 1)
    family, generator = WindowFamily(), torch.Generator().manual_seed(0)
    arms = initialize(family, torch.ones(5, 4, dtype=torch.bool), SHAPE, generator)
    pattern, window = arms.parameters
    advance(prepare(net, x[:2]), family, arms, x, y, steps=3, batch=4, generator=generator)
    assert torch.equal(arms.parameters[1], window)
    assert not torch.equal(arms.parameters[0], pattern)
    triggered = family.apply(arms.parameters, x[:2])
    outside = window[:, None].expand_as(triggered) == 0
    assert torch.equal(triggered[outside], x[:2].expand_as(triggered)[outside])


def test_large_pictures_get_less_effort() -> None:
    small, large = WindowSearchBudget().at((3, 32, 32)), WindowSearchBudget().at((3, 224, 224))
    assert small == WindowSearchBudget()
    assert large.window_steps < small.window_steps
    assert not large.overlap


@pytest.mark.parametrize("looks", [1, 5, 15])
def test_a_budget_that_ends_is_an_abstention(looks: int) -> None:
    class Looks(Budget):
        left_over = looks

        def left(self) -> float:
            self.left_over -= 1
            return float(self.left_over >= 0)

    net, x, _ = toy(4, 1)
    finding = LocalPatch()(artifact_of(net, 4), Split(x, None), budget=Looks())
    assert finding.outcome.status == "abstained"
    assert f"the budget ended after {looks - 1} of 30 steps" in finding.reason


def test_the_last_stage_refines_the_easiest_classes_and_leaves_the_others() -> None:
    net, x, y = toy(4, 2)
    rough, fine = WindowSearchBudget(), WindowSearchBudget(refined=2, final_steps=30)
    (_, before), (_, after) = (search_windows(prepare(net, x[:2]), x, y, 4, search_budget=e, seed=0) for e in (rough, fine))
    assert after.steps == before.steps + 30 == fine.steps
    assert after.target == before.target == 2
    assert torch.equal(after.classes, before.classes)
    assert after.reachability[1] > before.reachability[1]  # the first is as sure as can be already
    assert torch.equal(after.reachability[2:], before.reachability[2:])
