"""Tests of the races of triggers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from support.toys import artifact_of, toy
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.errors import Unmeasurable
from assay.core.finding import Finding
from assay.detectors import PatchScan, WaveScan
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.scans.base import Scan
from assay.detectors.scans.race import (
    HEATS,
    Round,
    leading_classes,
    leading_triggers,
    ranking_odds,
    sample_order,
)

CLASSES = 6
FULL = (Round(samples=8, classes=CLASSES),)
ROUNDS = (Round(samples=1), Round(samples=4, triggers=8, classes=6), Round(samples=8, triggers=2, classes=4))


class Counting(nn.Module):
    """A model that counts its images."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.images = net, 0

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        return self.net(x)


@dataclass(frozen=True)
class Brightness:
    """A trigger that scales images by ``factor``."""

    factor: float

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.factor


def run_scan(rounds: Sequence[Round], *, samples: int = 8, count: int = 64) -> tuple[Scan, int]:
    net, x, _ = toy(CLASSES, None)
    model = Counting(net)
    scan = Scan(artifact_of(model, CLASSES, differentiable=False), Split(x, None), Budget(), samples=samples)
    before = model.images
    scan.race([Brightness(1 - i / count) for i in range(count)], rounds, lambda fraction: None)
    return scan, model.images - before


def run_detector(detector: Detector) -> tuple[Finding, int]:
    net, x, _ = toy(CLASSES, 3)
    model = Counting(net)
    finding = detector(artifact_of(model, CLASSES, differentiable=False), Split(x, None))
    return finding, model.images


def test_full_race_measures_every_trigger_on_every_sample() -> None:
    scan, images = run_scan(FULL)
    assert images == 64 * 8
    assert scan.tried == 64
    assert bool(scan.best_odds.isfinite().all())


def test_race_measures_fewer_images_and_finds_the_same_best_triggers() -> None:
    full, raced = run_scan(FULL)[0], run_scan(ROUNDS)
    assert raced[1] < 64 * 8 / 2
    assert raced[0].tried == 64
    target = int(full.best_odds.argmax())
    assert int(raced[0].best_odds.argmax()) == target
    assert raced[0].best[target] == full.best[target]
    assert float(raced[0].best_odds[target]) == pytest.approx(float(full.best_odds[target]), abs=1e-4)


def test_race_never_raises_the_odds_of_a_class() -> None:
    full, raced = run_scan(FULL)[0], run_scan(ROUNDS)[0]
    assert bool((raced.best_odds <= full.best_odds + 1e-4).all())


def test_only_leading_classes_have_odds() -> None:
    assert int(run_scan(ROUNDS)[0].best_odds.isfinite().sum()) == 4


def test_rounds_beyond_the_samples_measure_nothing_new() -> None:
    few, images = run_scan(ROUNDS, samples=4)
    assert images < 64 + 8 * 6 * 3
    assert int(few.best_odds.isfinite().sum()) == 4


@pytest.mark.parametrize(
    ("raced", "full"),
    [
        (PatchScan(), PatchScan(coarse=FULL, fine=FULL)),
        (WaveScan(), WaveScan(rounds=(Round(samples=10, classes=CLASSES),))),
    ],
    ids=lambda detector: detector.name,
)
def test_raced_scan_has_the_target_of_the_full_scan(raced: Detector, full: Detector) -> None:
    (quick, few), (slow, many) = run_detector(raced), run_detector(full)
    assert few < many / 2
    assert quick.target == slow.target
    assert quick.score == pytest.approx(slow.score, rel=0.3)
    assert slow.evidence.numbers["triggers"] > 100


def test_scans_of_one_model_share_the_predictions_of_clean_samples() -> None:
    net, x, _ = toy(CLASSES, None)
    model = Counting(net)
    artifact, clean = artifact_of(model, CLASSES, differentiable=False), Split(x, None)
    first = Scan(artifact, clean, Budget(), samples=8)
    images = model.images
    second = Scan(artifact, clean, Budget(), samples=4)
    assert model.images == images > 0
    assert second.predicted.tolist() == first.predicted[:4].tolist()
    with torch.no_grad():
        net.head.bias[0] += 100.0
    with pytest.raises(Unmeasurable, match="one class"):
        Scan(artifact, clean, Budget(), samples=4)


def test_first_samples_rotate_and_later_ones_are_the_same() -> None:
    order = sample_order(5, 6)
    assert order[:, 0].tolist() == [0, 1, 2, 3, 0]
    assert order[:, HEATS:].tolist() == [[4, 5]] * 5
    assert all(sorted(row) == list(range(6)) for row in order.tolist())
    assert sample_order(3, 2).tolist() == [[0, 1], [1, 0], [0, 1]]


def test_class_of_all_samples_is_ranked_by_them() -> None:
    odds = torch.tensor([[[1.0, -2.0]], [[3.0, -4.0]]])  # (T, N, K)
    means = ranking_odds(odds, torch.tensor([[0], [1]]))
    assert means.tolist() == [[1.0, -2.0], [3.0, -4.0]]
    both = ranking_odds(torch.cat([odds, odds + 1], 1), torch.tensor([[0, 1], [1, 0]]))
    assert both.tolist() == [[2.0, -2.0], [3.0, -3.0]]  # without the sample of the class itself


def test_triggers_stay_by_their_odds_for_a_leading_class() -> None:
    means = torch.tensor([[5.0, 0.0, 9.0], [4.0, 1.0, 0.0], [3.0, 2.0, 0.0], [2.0, 3.0, 8.0]])
    same = torch.zeros(4, 1, dtype=torch.int64)
    assert leading_classes(means, 2).tolist() == [2, 0]
    assert leading_triggers(means, same, Round(samples=2)).tolist() == [0, 1, 2, 3]
    assert leading_triggers(means, same, Round(samples=2, triggers=1, classes=1)).tolist() == [0]
    assert leading_triggers(means, same, Round(samples=2, triggers=2, classes=2)).tolist() == [0, 1, 3]


def test_only_triggers_with_the_same_samples_are_compared() -> None:
    means = torch.tensor([[9.0], [8.0], [1.0], [0.0]])
    samples = torch.tensor([[0], [0], [1], [1]])
    assert leading_triggers(means, samples, Round(samples=2, triggers=2, classes=1)).tolist() == [0, 2]
    rotated = torch.tensor([[0, 1], [1, 0], [0, 1], [1, 0]])
    assert leading_triggers(means, rotated, Round(samples=3, triggers=2, classes=1)).tolist() == [0, 1]
