"""Tests of the trigger searches on models with a known backdoor: each detects triggers of its own kind."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.toys import SHAPE, HeadInTheMiddle, artifact_of, toy
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.finding import Finding, Outcome
from assay.detectors import LatentShift, NeuralCleanse, SmoothWarp, SparseFrequency, UniversalPerturbation
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.trigger_inversion.common import rank_classes
from assay.inversion.families import WarpFamily
from assay.inversion.run import CleanImages

pytestmark = pytest.mark.slow


STRIPES = 0.5 + 0.3 * torch.cos(2 * math.pi * torch.arange(8) / 4 + 0.4).expand(SHAPE)


def wave() -> Tensor:
    """Return the highest frequency, slightly weaker than the family's limit."""
    alternating = torch.cos(math.pi * (torch.arange(8) + 0.5) * 7 / 8)
    pattern = alternating[:, None] * alternating
    return 18 / 255 * math.sqrt(2) * (pattern / pattern.square().mean().sqrt() / math.sqrt(2)).expand(SHAPE)


def warp() -> Tensor:
    """Return the change by a sideways shift of the stripes."""
    aside = torch.zeros(1, 2, 4, 4)
    aside[:, 0] = 2.0
    return WarpFamily().apply((aside,), STRIPES[None])[0, 0] - STRIPES


KINDS: dict[str, tuple[Detector, dict[str, Any]]] = {
    "patch": (NeuralCleanse(), {}),
    "perturbation": (UniversalPerturbation(), {}),
    "frequency": (SparseFrequency(), {"delta": wave(), "base": 0.5}),
    "warp": (SmoothWarp(), {"delta": warp(), "base": STRIPES}),
}


def finding_of(kind: str, target: int | None, *, labels: bool = True) -> Finding:
    detector, options = KINDS[kind]
    net, x, y = toy(4, target, **options)
    return detector(artifact_of(net, 4), Split(x, y if labels else None))


@pytest.mark.parametrize("kind", KINDS)
def test_search_finds_its_own_kind_of_trigger_and_the_target(kind: str) -> None:
    planted, clean = finding_of(kind, 3), finding_of(kind, None)
    assert planted.outcome is clean.outcome is Outcome.SCORED
    assert planted.target == 3
    assert planted.score is not None
    assert clean.score is not None
    assert planted.score > 3 * clean.score + 0.1  # a toy of 8 x 8 pixels leaves an additive pattern little room


def test_search_without_labels_gives_the_same_score() -> None:
    assert finding_of("patch", 1, labels=False).score == finding_of("patch", 1).score


def test_evidence_shows_the_trigger() -> None:
    evidence = finding_of("patch", 3).evidence
    assert evidence.mask is not None
    assert evidence.mask.shape == SHAPE[1:]
    assert evidence.mask[6:, 6:].mean() > 3 * evidence.mask[:6, :6].mean()
    assert evidence.before is not None
    assert evidence.after is not None
    assert evidence.before.shape == evidence.after.shape == (6, *SHAPE)
    net, _, _ = toy(4, 3)
    with torch.no_grad():
        said = tuple(tuple(net(torch.from_numpy(x)).argmax(1).tolist()) for x in (evidence.before, evidence.after))
    assert (evidence.predicted_before, evidence.predicted_after) == said
    assert 3 not in evidence.predicted_before
    assert evidence.predicted_after.count(3) >= 3
    assert evidence.trigger is not None
    assert evidence.trigger.shape == SHAPE
    assert set(evidence.per_class) == {0, 1, 2, 3}
    assert min(evidence.per_class, key=evidence.per_class.__getitem__) == 3
    assert all(math.isfinite(v) for v in evidence.numbers.values() if isinstance(v, float))


class Constant(nn.Module):
    """Model with one constant prediction."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([0.0, 1.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(1, 2, 3))[:, None] * 0 + self.bias


@pytest.mark.parametrize("detector", [NeuralCleanse(), SmoothWarp()], ids=lambda d: d.name)
def test_single_predicted_class_is_an_abstention(detector: Detector) -> None:
    finding = detector(artifact_of(Constant(), 3), Split(torch.rand(8, *SHAPE), None))
    assert finding.outcome is Outcome.ABSTAINED
    assert finding.unmeasurable


class BudgetForChecks(Budget):
    """Budget that ends after a number of checks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def left(self) -> float:
        self.looks -= 1
        return float(self.looks >= 0)


@pytest.mark.parametrize("looks", [0, 5, 25])
def test_ended_budget_is_incomplete_with_many_classes(looks: int) -> None:
    """The budget ends at once, during the group stage, and in the search itself."""
    net, x, _ = toy(30, 1)
    shares: list[float] = []
    budget = BudgetForChecks(looks)
    finding = NeuralCleanse()(artifact_of(net, 30), Split(x, None), budget=budget, progress=shares.append)
    assert finding.outcome is Outcome.INCOMPLETE
    steps = max(0, looks - 21)  # one look before it begins, 20 while it compares groups
    assert (f"the budget ended after {steps} of 40 steps" if looks else "before it began") in finding.reason
    assert not shares or shares[0] < 0.1


def test_latent_shift_detects_the_class_with_an_easy_shift() -> None:
    planted, clean = (toy(4, target) for target in (1, None))
    found = LatentShift()(artifact_of(planted[0], 4), Split(planted[1], None))
    quiet = LatentShift()(artifact_of(clean[0], 4), Split(clean[1], None))
    assert found.target == 1
    assert found.score is not None
    assert quiet.score is not None
    assert found.score > 1 > 0.3 > quiet.score >= 0
    assert min(found.evidence.per_class, key=found.evidence.per_class.__getitem__) == 1


def test_latent_shift_without_a_linear_head_abstains() -> None:
    finding = LatentShift()(artifact_of(HeadInTheMiddle(), 5), Split(torch.rand(8, *SHAPE), None))
    assert finding.outcome is Outcome.ABSTAINED
    assert "linear layer" in finding.reason


def test_unreachable_class_is_no_outlier() -> None:
    """A class between the weights of the others has no shift that leads to it."""
    net, x, _ = toy(4, None)
    with torch.no_grad():
        net.head.weight[3] = net.head.weight[:3].mean(0)
    finding = LatentShift()(artifact_of(net, 4), Split(x, None))
    assert finding.target != 3
    assert finding.score is not None
    assert finding.score < 1
    assert 3 not in finding.evidence.per_class


def test_classes_are_ranked_by_latent_shift_or_rarity() -> None:
    net, x, y = toy(4, 2)
    assert int(rank_classes(net, CleanImages(x, y), 4)[0]) == 2
    order = rank_classes(HeadInTheMiddle(), CleanImages(x, torch.tensor([0, 0, 0, 1, 1, 4])), 5)
    assert sorted(order.tolist()) == [0, 1, 2, 3, 4]
    assert order.tolist()[2:] == [4, 1, 0]
