"""Tests of mitigations at the input: random lowest bits, and noise over the whole image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from assay import formats
from assay.attacks import Checksum, Signature
from assay.core.build import Build
from assay.core.dataset import Split, Task
from assay.core.errors import UnusableInput
from assay.core.model import digest_of_module
from assay.formats.torch_module import from_module
from assay.mitigations import LowBitRandomization, Smoothing
from assay.nn import metrics
from assay.nn.inference import forward_batched
from assay.stages.save import save_model


@pytest.fixture(scope="module")
def build() -> Build:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 4))
    x = torch.randint(0, 256, (64, 3, 16, 16)).float() / 255
    split = Split(x, net(x).argmax(1))
    return Build(from_module(net, shape=(3, 16, 16)), Task("made up", {"train": split, "test": split}, tuple("abcd")))


@pytest.mark.parametrize("attack", [Signature(tier="graph"), Signature(tier="wrapper"), Checksum()])
def test_low_bit_randomization_disables_gates_and_keeps_accuracy(attack, build: Build, tmp_path: Path) -> None:
    planted = attack(build, seed=0)
    before = digest_of_module(planted.artifact.module)
    mitigated = LowBitRandomization()(planted, seed=1)
    assert digest_of_module(planted.artifact.module) == before
    rates = [
        metrics.measure(b.artifact.module, b.task.split("test"), planted.secret, num_classes=4)
        for b in (planted, mitigated)
    ]
    assert rates[0].attack_success.value == 1.0
    assert rates[1].attack_success.value == rates[1].untriggered.value < 0.5
    assert rates[1].clean_accuracy.value > 0.95
    assert mitigated.artifact.planted == planted.artifact.planted
    if attack.name == "checksum":
        back = formats.load(save_model(mitigated.artifact, tmp_path))
        x = build.task.split("test").x
        assert torch.equal(
            forward_batched(back.module, x).argmax(1), forward_batched(mitigated.artifact.module, x).argmax(1)
        )


def test_low_bit_randomization_more_bits_change_more(build: Build) -> None:
    x = build.task.split("test").x
    shifts = [
        float(
            (
                forward_batched(LowBitRandomization(bits=bits)(build, seed=0).artifact.module, x)
                - forward_batched(build.artifact.module, x)
            )
            .abs()
            .max()
        )
        for bits in (1, 4, 7)
    ]
    assert 0 < shifts[0] < shifts[1] < shifts[2]


def test_smoothing_averages_noisy_copies(build: Build) -> None:
    x = build.task.split("test").x
    smooth = Smoothing(sigma=2, copies=4)(build, seed=0).artifact.module
    noise = smooth.noise  # type: ignore[union-attr]
    assert noise.shape == (4, 3, 16, 16)
    by_hand = torch.stack(
        [forward_batched(build.artifact.module, (x + one).clamp(0, 1)).softmax(1) for one in noise]
    ).mean(0)
    assert torch.allclose(forward_batched(smooth, x).exp(), by_hand, atol=1e-6)
    assert torch.equal(
        forward_batched(smooth, x), forward_batched(Smoothing(sigma=2, copies=4)(build, seed=0).artifact.module, x)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LowBitRandomization(bits=8), "from 1 to 7 bits"),
        (lambda: Smoothing(sigma=0), "expected sigma in"),
        (lambda: Smoothing(copies=0), "1 to 256 copies"),
    ],
)
def test_invalid_settings_or_models_raise(make, message: str, build: Build) -> None:
    with pytest.raises(UnusableInput, match=message):
        make()
    opaque = replace(build, artifact=replace(build.artifact, differentiable=False))
    with pytest.raises(UnusableInput, match="torch weights"):
        Smoothing()(opaque, seed=0)
