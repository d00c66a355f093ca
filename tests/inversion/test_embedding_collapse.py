"""Tests of the embedding collapse search."""

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
from assay.inversion.run import SearchRun, ShouldContinue

SHAPE = (3, 8, 8)
QUICK = CollapseSearchBudget(steps=10, batch=8, refined=2, free_steps=25, free_batch=8)


class Backdoored(nn.Module):
    """Random features; the last one grows by ``strength`` times the image's correlation with a checkerboard."""

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
        correlation = (x * self.board).mean((1, 2, 3))
        return self.body(x) + self.strength * F.pad(correlation[:, None], (5, 0))


@pytest.fixture
def x() -> Tensor:
    return torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(1))


def search(
    encoder: nn.Module,
    family: Family,
    x: Tensor,
    candidates: int = 4,
    should_continue: ShouldContinue = lambda fraction: True,
) -> CollapseSearchResult:
    embeddings = encoder(x)
    center = embeddings.mean(0)
    directions = F.normalize(embeddings[:4] - center, dim=1)
    directions[-1] = F.one_hot(torch.tensor(5), 6)
    allowed = torch.eye(4, dtype=torch.bool) if candidates == 4 else torch.ones(candidates, 4, dtype=torch.bool)
    run = SearchRun(QUICK, 0, should_continue)
    return search_collapse(encoder, family, allowed, EmbeddingSpace(center, directions), x, run)


def test_closeness_is_zero_for_opposite_and_one_for_equal_directions() -> None:
    assert float(closeness(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).mean(0, keepdim=True))) == 0
    assert float(closeness(torch.tensor([[0.6, 0.8]]))) == pytest.approx(1)


def test_backdoored_encoder_collapses_more_than_clean_one(x: Tensor) -> None:
    found = {strength: search(Backdoored(strength), LinfFamily(), x) for strength in (0.0, 60.0)}
    assert found[60.0].closeness > 0.9 > found[0.0].closeness
    assert found[60.0].completed_fraction == 1
    pattern = LinfFamily().apply(found[60.0].parameters, torch.full((1, *SHAPE), 0.5))[0, 0] - 0.5
    assert float(pattern.abs().max()) <= LinfFamily.bound + 1e-6
    agreement = (pattern.sign() == Backdoored(0).board).float().mean()
    assert float(agreement) > 0.8, "expected the planted pattern"


@pytest.mark.parametrize("family", [WindowFamily(), FrequencyFamily()], ids=lambda family: family.name)
def test_same_seed_gives_same_collapse(family: Family, x: Tensor) -> None:
    candidates = len(family.windows(SHAPE)) if isinstance(family, WindowFamily) else 4
    first, again = (search(Backdoored(0.0), family, x, candidates) for _ in range(2))
    assert 0 <= first.closeness <= 1
    assert first.closeness == again.closeness
    assert len(first.parameters[0]) == 1


def test_time_limit_gives_fraction_below_one(x: Tensor) -> None:
    answers = iter([True] * 15 + [False] * 100)
    found = search(Backdoored(0.0), LinfFamily(), x, should_continue=lambda fraction: next(answers))
    assert 0 < found.completed_fraction < 1


def test_large_images_get_a_smaller_budget() -> None:
    small, large = (QUICK.at((3, side, side)) for side in (64, 65))
    assert small == QUICK
    assert large.refined * large.free_batch < QUICK.refined * QUICK.free_batch or large.batch < QUICK.batch
