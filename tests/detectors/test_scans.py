"""Tests of the scans: each finds its own kind of trigger, in models of any format."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from support.toys import SHAPE, artifact_of, toy
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.finding import Finding, Outcome
from assay.detectors import BlendScan, DepthScan, FilterScan, NoiseScan, PatchScan, WarpScan, WaveScan
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.scans.base import stratified_indices
from assay.detectors.scans.noise import Noise
from assay.detectors.scans.patch import FILLS, MAX_CANDIDATES, SolidPatch, coarse_patches, fine_patches
from assay.detectors.scans.warp import Warp
from assay.detectors.scans.wave import AMPLITUDE, Wave, waves

SHAPES = [(3, 8, 8), (1, 28, 28), (3, 32, 48), (3, 224, 224)]


class Planted(nn.Module):
    """A model without gradients that predicts ``target`` for every image with ``has_trigger``."""

    def __init__(self, net: nn.Module, target: int, has_trigger: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.target, self.has_trigger = net, target, has_trigger

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x).clone()
        logits[:, self.target] += 100 * self.has_trigger(x)
        return logits


def has_white_corner(x: Tensor) -> Tensor:
    return (x[:, :, -2:, -2:] > 0.99).flatten(1).all(1)


def has_three_waves(x: Tensor) -> Tensor:
    wave = torch.sin(2 * math.pi * 3 * torch.arange(x.shape[3]) / x.shape[3])
    return (x * wave).mean((1, 2, 3)) > 0.3 * AMPLITUDE


KINDS: dict[str, tuple[Detector, Callable[[Tensor], Tensor], str]] = {
    "patch": (PatchScan(), has_white_corner, "px patch, #ffffff"),
    "wave": (WaveScan(), has_three_waves, "periods across, 0 down"),
}


def finding_of(kind: str, *, planted: bool) -> Finding:
    detector, has_trigger, _ = KINDS[kind]
    net, x, _ = toy(6, None)
    x = x.clamp(0.03, 0.97)
    model = Planted(net, 3, has_trigger) if planted else net
    return detector(artifact_of(model, 6, differentiable=False), Split(x, None))


@pytest.mark.parametrize("kind", KINDS)
def test_scan_without_gradients_finds_its_own_kind_of_trigger(kind: str) -> None:
    planted, clean = finding_of(kind, planted=True), finding_of(kind, planted=False)
    assert planted.outcome is clean.outcome is Outcome.SCORED, planted.reason + clean.reason
    assert planted.target == 3
    assert float(planted.evidence.numbers["success"]) > 0.8
    assert KINDS[kind][2] in str(planted.evidence.numbers["trigger"])
    assert planted.score is not None
    assert clean.score is not None
    assert planted.score > clean.score + 2
    before, after = planted.evidence.predicted_before, planted.evidence.predicted_after
    assert planted.evidence.after is not None
    assert len(before) == len(after) == len(planted.evidence.after)
    assert 3 not in before
    assert after.count(3) > len(after) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_scan_without_time_is_incomplete(kind: str) -> None:
    net, x, _ = toy(4, None)
    finding = KINDS[kind][0](artifact_of(net, 4), Split(x, None), budget=Budget(0.0))
    assert finding.outcome is Outcome.INCOMPLETE
    assert "give it more" in finding.reason


@pytest.mark.parametrize("kind", KINDS)
def test_scan_of_a_model_with_one_predicted_class_abstains(kind: str) -> None:
    net, x, _ = toy(4, None)
    with torch.no_grad():
        net.head.bias[0] = 10.0  # the first class has the largest logit for every image
    finding = KINDS[kind][0](artifact_of(net, 4), Split(x, None))
    assert finding.outcome is Outcome.ABSTAINED
    assert "one class" in finding.reason


def test_progress_of_the_patch_scan_rises_through_both_sweeps() -> None:
    """A second sweep that counted the first sweep's triggers would report 100 % at once."""
    net, x, _ = toy(6, None)
    fractions: list[float] = []
    PatchScan()(artifact_of(net, 6), Split(x, None), progress=fractions.append)
    second = [fraction for fraction in fractions if fraction > 0.8]
    assert fractions == sorted(fractions)
    assert len(set(second)) == len(second) > 1
    assert second[0] < 0.9
    assert second[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_trigger_keeps_shape_and_range_and_has_a_unique_name(shape: tuple[int, int, int]) -> None:
    x = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    patches = list(coarse_patches(*shape[1:]))
    refined = list(fine_patches(patches[:: len(patches) // MAX_CANDIDATES], *shape[1:]))
    samples = Split(x.flip(3), None)
    sinusoids, filters = waves(), FilterScan().triggers(samples)
    for triggers in (sinusoids, patches, filters):
        assert len({str(trigger) for trigger in triggers}) == len(triggers)
    scans = (BlendScan(), NoiseScan(), DepthScan(), FilterScan(), WarpScan())
    cheap = [trigger for scan in scans for trigger in scan.triggers(samples)]
    for trigger in (*cheap, *sinusoids[::29], *patches[::97], *refined[::97]):
        before = x.clone()
        triggered = trigger(x)
        assert torch.equal(x, before)
        assert triggered.shape == x.shape
        assert 0 <= float(triggered.min()) <= float(triggered.max()) <= 1
        assert not torch.equal(triggered, x) or (shape[0] == 1 and "colors times" in str(trigger))


def test_coarse_patches_cover_the_whole_image_with_every_fill() -> None:
    for height, width in ((32, 32), (8, 8), (28, 41)):
        seen = torch.zeros(height, width)
        for patch in coarse_patches(height, width):
            assert patch.top + patch.side <= height
            assert patch.left + patch.side <= width
            seen[patch.top : patch.top + patch.side, patch.left : patch.left + patch.side] += 1 / len(FILLS)
        assert float(seen.min()) > 0.99


def test_patch_changes_only_its_own_pixels() -> None:
    x = torch.full((2, *SHAPE), 0.5)
    changed = SolidPatch(1, 2, 3, (1.0, 0.0, 1.0))(x) != x
    assert int(changed[0, 0].sum()) == 9
    assert bool(changed[:, :, 1:4, 2:5].all())
    gray = SolidPatch(0, 0, 2, (1.0, 0.0, 0.0))(torch.zeros(1, 1, 8, 8))
    assert float(gray.max()) == pytest.approx(1 / 3)


def test_wave_has_its_amplitude_and_its_periods() -> None:
    wave = Wave(0, 4, 0.25)(torch.full((1, 3, 32, 32), 0.5))[0, 0, 0] - 0.5
    assert float(wave.max()) == pytest.approx(AMPLITUDE, rel=1e-3)
    assert int(torch.fft.rfft(wave).abs().argmax()) == 4


def test_stratified_indices_take_samples_of_each_class_in_turn() -> None:
    classes = torch.tensor([0] * 50 + [1] * 3 + [2])
    chosen = classes[stratified_indices(classes, 6)]
    assert sorted(chosen.tolist()) == [0, 0, 0, 1, 1, 2]


class Biased(nn.Module):
    """A model with a small bias towards class 3, which grows with ``measure`` (N,) of the images."""

    def __init__(self, net: nn.Module, measure: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.measure = net, measure

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x).clone()
        logits[:, 3] += self.measure(x)
        return logits


def roughness(x: Tensor) -> Tensor:
    return 40 * (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))


def level_coarseness(x: Tensor) -> Tensor:
    return 30 * sum((((levels - 1) * x).frac() < 1e-4).float().mean((1, 2, 3)) for levels in (5, 6, 7, 8))


BIASED: dict[str, tuple[Detector, Callable[[Tensor], Tensor]]] = {
    "noise-scan": (NoiseScan(), roughness),
    "depth-scan": (DepthScan(), level_coarseness),
}


@pytest.mark.parametrize("name", BIASED)
def test_class_bias_raises_the_mean_without_a_known_trigger(name: str) -> None:
    detector, measure = BIASED[name]
    net, x, _ = toy(6, None)
    x = x.clamp(0.03, 0.97)
    clean, biased = (
        detector(artifact_of(model, 6, differentiable=False), Split(x, None)) for model in (net, Biased(net, measure))
    )
    assert clean.outcome is biased.outcome is Outcome.SCORED
    assert biased.target == 3
    assert biased.score is not None
    assert clean.score is not None
    assert biased.score > clean.score + 1


@pytest.mark.parametrize("detector", [BlendScan(), FilterScan(), WarpScan()], ids=lambda d: d.name)
def test_constant_bias_to_one_class_raises_the_score(detector: Detector) -> None:
    net, x, _ = toy(6, None)
    clean, biased = (
        detector(artifact_of(model, 6, differentiable=False), Split(x, None))
        for model in (net, Biased(net, lambda x: x.new_full((len(x),), 2.0)))
    )
    assert biased.target == 3
    assert biased.score is not None
    assert clean.score is not None
    assert biased.score > clean.score + 0.5


def test_noise_has_its_strength_and_is_fixed() -> None:
    gray_image = torch.full((2, 3, 32, 32), 0.5)
    noisy = Noise(8 / 255, 1)(gray_image)
    assert float((noisy - 0.5).std()) == pytest.approx(8 / 255, rel=0.05)
    assert torch.equal(noisy[0], noisy[1])
    assert torch.equal(noisy, Noise(8 / 255, 1)(gray_image))


def test_warp_moves_pixels_little_and_keeps_flat_images() -> None:
    flat = torch.full((1, 3, 32, 32), 0.3)
    assert torch.allclose(Warp(4, 1)(flat), flat, atol=1e-6)
    ramp = torch.linspace(0, 1, 32).expand(1, 1, 32, 32)
    moved = (Warp(4, 1)(ramp) - ramp).abs() * 31  # in pixels
    assert 0.1 < float(moved.mean()) < 1.5
