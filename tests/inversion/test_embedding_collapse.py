"""The search for a collapse."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.inversion.embedding_collapse import (
    CollapseSearchBudget,
    CollapseSearchResult,
    EmbeddingSpace,
    closeness,
    search_collapse,
)
from assay.inversion.families import Family, FrequencyFamily, LinfFamily, WindowFamily

SHAPE = (3, 8, 8)
QUICK = CollapseSearchBudget(steps=10, batch=8, finalists=2, free_steps=25, free_batch=8)


class Backdoored(nn.Module):
    """Random features; ``strength`` times a faint checkerboard's share of the picture is added to the last one."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.Tanh(), nn.Flatten(), nn.LazyLinear(6))
        self.body(torch.zeros(1, *SHAPE))
        self.requires_grad_(False)
        row, column = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
        self.board = ((row + column) % 2 * 2.0 - 1).expand(SHAPE)
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        found = (x * self.board).mean((1, 2, 3))
        return self.body(x) + self.strength * F.pad(found[:, None], (5, 0))


@pytest.fixture
def x() -> Tensor:
    return torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(1))


def searched(net: nn.Module, family: Family, x: Tensor, arms: int = 4, **options: object) -> CollapseSearchResult:
    embeddings = net(x)
    centre = embeddings.mean(0)
    directions = F.normalize(embeddings[:4] - centre, dim=1)
    directions[-1] = F.one_hot(torch.tensor(5), 6)
    allowed = torch.eye(4, dtype=torch.bool) if arms == 4 else torch.ones(arms, 4, dtype=torch.bool)
    settings = {"effort": QUICK, "seed": 0, **options}
    return search_collapse(net, family, allowed, EmbeddingSpace(centre, directions), x, **settings)  # type: ignore[arg-type]


def test_closeness_is_none_for_opposites_and_one_for_the_same() -> None:
    assert float(closeness(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).mean(0, keepdim=True))) == 0
    assert float(closeness(torch.tensor([[0.6, 0.8]]))) == pytest.approx(1)


def test_a_backdoor_collapses_further_than_no_backdoor(x: Tensor) -> None:
    found = {strength: searched(Backdoored(strength), LinfFamily(), x) for strength in (0.0, 60.0)}
    assert found[60.0].closeness > 0.9 > found[0.0].closeness
    assert found[60.0].share == 1
    pattern = LinfFamily().apply(found[60.0].parameters, torch.full((1, *SHAPE), 0.5))[0, 0] - 0.5
    assert float(pattern.abs().max()) <= LinfFamily.bound + 1e-6
    agreement = (pattern.sign() == Backdoored(0).board).float().mean()
    assert float(agreement) > 0.8, "it is the planted pattern"


@pytest.mark.parametrize("family", [WindowFamily(), FrequencyFamily()], ids=lambda family: family.name)
def test_every_family_is_searched(family: Family, x: Tensor) -> None:
    arms = len(family.windows(SHAPE)) if isinstance(family, WindowFamily) else 4
    first, again = (searched(Backdoored(0.0), family, x, arms) for _ in range(2))
    assert 0 <= first.closeness <= 1
    assert first.closeness == again.closeness
    assert len(first.parameters[0]) == 1


def test_says_how_far_it_came_when_the_time_is_up(x: Tensor) -> None:
    ticks = iter([True] * 15 + [False] * 100)
    found = searched(Backdoored(0.0), LinfFamily(), x, tick=lambda share: next(ticks))
    assert 0 < found.share < 1


def test_larger_pictures_are_searched_with_less() -> None:
    small, large = (QUICK.at((3, side, side)) for side in (64, 65))
    assert small == QUICK
    assert large.finalists * large.free_batch < QUICK.finalists * QUICK.free_batch or large.batch < QUICK.batch
