"""The detectors that try triggers from a list: each finds its own kind, on any file that runs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from support.toys import SHAPE, artifact_of, toy
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.finding import Finding
from assay.detectors import BlendScan, DepthScan, FilterScan, NoiseScan, PatchScan, WarpScan, WaveScan
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.scans.base import spread
from assay.detectors.scans.blend import blends
from assay.detectors.scans.color_depth import LEVELS, GreyLevels
from assay.detectors.scans.filter import filters
from assay.detectors.scans.noise import Noise, noises
from assay.detectors.scans.patch import CANDIDATES, FILLS, Plain, coarse, fine
from assay.detectors.scans.warp import Warp, warps
from assay.detectors.scans.wave import AMPLITUDE, Wave, waves

SHAPES = [(3, 8, 8), (1, 28, 28), (3, 32, 48), (3, 224, 224)]


class Planted(nn.Module):
    """A net without gradients that answers ``target`` where a picture moves by ``trigger`` no further."""

    def __init__(self, net: nn.Module, target: int, trigger: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.target, self.trigger = net, target, trigger

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x).clone()
        logits[:, self.target] += 100 * self.trigger(x)
        return logits


def white_corner(x: Tensor) -> Tensor:
    return (x[:, :, -2:, -2:] > 0.99).flatten(1).all(1)


def few_levels(x: Tensor) -> Tensor:
    return ((7 * x).round() / 7 - x).abs().flatten(1).amax(1) < 1e-6


def three_waves(x: Tensor) -> Tensor:
    wave = torch.sin(2 * math.pi * 3 * torch.arange(x.shape[3]) / x.shape[3])
    return (x * wave).mean((1, 2, 3)) > 0.3 * AMPLITUDE


KINDS: dict[str, tuple[Detector, Callable[[Tensor], Tensor], str]] = {
    "patch": (PatchScan(), white_corner, "px patch, #ffffff"),
    "wave": (WaveScan(), three_waves, "periods across, 0 down"),
}


def finding_of(kind: str, *, planted: bool) -> Finding:
    detector, trigger, _ = KINDS[kind]
    net, x, _ = toy(6, None)
    x = x.clamp(0.03, 0.97)
    model = Planted(net, 3, trigger) if planted else net
    return detector(artifact_of(model, 6, differentiable=False), Split(x, None))


@pytest.mark.parametrize("kind", KINDS)
def test_each_finds_its_own_kind_without_gradients(kind: str) -> None:
    planted, clean = finding_of(kind, planted=True), finding_of(kind, planted=False)
    assert planted.outcome.status == clean.outcome.status == "ok", planted.reason + clean.reason
    assert planted.target == 3
    assert float(planted.evidence.numbers["success"]) > 0.8
    assert KINDS[kind][2] in str(planted.evidence.numbers["trigger"])
    assert planted.score is not None
    assert clean.score is not None
    assert planted.score > clean.score + 2
    assert planted.evidence.after is not None
    assert (
        len(planted.evidence.predicted_before) == len(planted.evidence.predicted_after) == len(planted.evidence.after)
    )
    assert 3 not in planted.evidence.predicted_before
    assert planted.evidence.predicted_after.count(3) > len(planted.evidence.predicted_after) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_budget_that_ends_and_a_net_of_one_class_are_abstentions(kind: str) -> None:
    detector, (net, x, _) = KINDS[kind][0], toy(4, None)
    late = detector(artifact_of(net, 4), Split(x, None), budget=Budget(0.0))
    assert late.outcome.status == "abstained"
    assert "give it more" in late.reason
    with torch.no_grad():
        net.head.weight.zero_()
    same = detector(artifact_of(net, 4), Split(x, None))
    assert same.outcome.status == "abstained"
    assert "one class" in same.reason


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_trigger_fits_its_pictures_and_has_a_name_of_its_own(shape: tuple[int, int, int]) -> None:
    x = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    patches = list(coarse(*shape[1:]))
    refined = list(fine(patches[:: len(patches) // CANDIDATES], *shape[1:]))
    for bank in (list(waves()), patches, list(filters())):
        assert len({str(trigger) for trigger in bank}) == len(bank)
    cheap = (*blends(x.flip(3)), *noises(), *map(GreyLevels, LEVELS), *filters(), *warps())
    for trigger in (*cheap, *list(waves())[::29], *patches[::97], *refined[::97]):
        before = x.clone()
        triggered = trigger(x)
        assert torch.equal(x, before)
        assert triggered.shape == x.shape
        assert 0 <= float(triggered.min()) <= float(triggered.max()) <= 1
        assert not torch.equal(triggered, x) or (shape[0] == 1 and "colours times" in str(trigger))


def test_the_patches_cover_the_whole_picture_in_every_fill() -> None:
    for height, width in ((32, 32), (8, 8), (28, 41)):
        seen = torch.zeros(height, width)
        for patch in coarse(height, width):
            assert patch.top + patch.side <= height
            assert patch.left + patch.side <= width
            seen[patch.top : patch.top + patch.side, patch.left : patch.left + patch.side] += 1 / len(FILLS)
        assert float(seen.min()) > 0.99


def test_a_patch_changes_its_own_pixels_only() -> None:
    x = torch.full((2, *SHAPE), 0.5)
    changed = Plain(1, 2, 3, (1.0, 0.0, 1.0))(x) != x
    assert int(changed[0, 0].sum()) == 9
    assert bool(changed[:, :, 1:4, 2:5].all())
    grey = Plain(0, 0, 2, (1.0, 0.0, 0.0))(torch.zeros(1, 1, 8, 8))
    assert float(grey.max()) == pytest.approx(1 / 3)


def test_a_wave_has_its_amplitude_and_its_periods() -> None:
    wave = Wave(0, 4, 0.25)(torch.full((1, 3, 32, 32), 0.5))[0, 0, 0] - 0.5
    assert float(wave.max()) == pytest.approx(AMPLITUDE, rel=1e-3)
    assert int(torch.fft.rfft(wave).abs().argmax()) == 4


def test_samples_are_spread_over_the_classes() -> None:
    classes = torch.tensor([0] * 50 + [1] * 3 + [2])
    chosen = classes[spread(classes, 6)]
    assert sorted(chosen.tolist()) == [0, 0, 0, 1, 1, 2]


class Leaning(nn.Module):
    """Leans to class 3 by how far a picture is from ``usual`` in the way that ``felt`` (N,) measures, if by little."""

    def __init__(self, net: nn.Module, felt: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.felt = net, felt

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x).clone()
        logits[:, 3] += self.felt(x)
        return logits


def rough(x: Tensor) -> Tensor:
    return 40 * (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))


def grey(x: Tensor) -> Tensor:
    return -40 * (x.amax(1) - x.amin(1)).mean((1, 2))


def coarse_levels(x: Tensor) -> Tensor:
    return 30 * sum((((levels - 1) * x).frac() < 1e-4).float().mean((1, 2, 3)) for levels in (5, 6, 7, 8))


LEANINGS: dict[str, tuple[Detector, Callable[[Tensor], Tensor]]] = {
    "noise-scan": (NoiseScan(), rough),
    "depth-scan": (DepthScan(), coarse_levels),
}


@pytest.mark.parametrize("name", LEANINGS)
def test_a_lean_shows_in_the_mean_though_no_trigger_is_known(name: str) -> None:
    detector, felt = LEANINGS[name]
    net, x, _ = toy(6, None)
    x = x.clamp(0.03, 0.97)
    clean, leaning = (
        detector(artifact_of(model, 6, differentiable=False), Split(x, None)) for model in (net, Leaning(net, felt))
    )
    assert (clean.outcome.status, leaning.outcome.status) == ("ok", "ok")
    assert leaning.target == 3
    assert leaning.score is not None
    assert clean.score is not None
    assert leaning.score > clean.score + 1


@pytest.mark.parametrize("detector", [BlendScan(), FilterScan(), WarpScan()], ids=lambda d: d.name)
def test_a_net_that_leans_to_one_class_anyway_stands_out(detector: Detector) -> None:
    net, x, _ = toy(6, None)
    clean, leaning = (
        detector(artifact_of(model, 6, differentiable=False), Split(x, None))
        for model in (net, Leaning(net, lambda x: x.new_full((len(x),), 2.0)))
    )
    assert leaning.target == 3
    assert leaning.score is not None
    assert clean.score is not None
    assert leaning.score > clean.score + 0.5


def test_noise_has_its_strength_and_stays_the_same() -> None:
    grey_picture = torch.full((2, 3, 32, 32), 0.5)
    noisy = Noise(8 / 255, 1)(grey_picture)
    assert float((noisy - 0.5).std()) == pytest.approx(8 / 255, rel=0.05)
    assert torch.equal(noisy[0], noisy[1])
    assert torch.equal(noisy, Noise(8 / 255, 1)(grey_picture))


def test_a_warp_moves_little_and_moves_no_flat_picture() -> None:
    flat = torch.full((1, 3, 32, 32), 0.3)
    assert torch.allclose(Warp(4, 1)(flat), flat, atol=1e-6)
    ramp = torch.linspace(0, 1, 32).expand(1, 1, 32, 32)
    moved = (Warp(4, 1)(ramp) - ramp).abs() * 31  # in pixels
    assert 0.1 < float(moved.mean()) < 1.5
