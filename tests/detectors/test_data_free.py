"""Tests of the detectors without data, and of the null controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.toys import SHAPE, artifact_of, toy
from torch import nn

from assay.core.dataset import Split
from assay.core.finding import Outcome
from assay.core.model import Artifact
from assay.detectors import ChannelLipschitz, MaxMargin, RandomScore, WeightNorm
from assay.detectors.weights.channel_lipschitz import channel_norms
from assay.inversion.prepare import prepare
from assay.triggers import Patch

EMPTY = Split(torch.zeros(0, *SHAPE), None)


def conv_net(*, norm: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), norm or nn.Identity(), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 4))


def lipschitz(net: nn.Module) -> float:
    score = ChannelLipschitz()(artifact_of(net.eval(), 4), EMPTY).score
    assert score is not None
    return score


def test_outlier_channel_raises_the_score() -> None:
    plain, outlier = conv_net(), conv_net()
    with torch.no_grad():
        outlier[0].weight[5] *= 10
    assert lipschitz(outlier) > lipschitz(plain) + 0.5


def test_layer_scale_does_not_change_the_score() -> None:
    plain, louder = conv_net(), conv_net()
    with torch.no_grad():
        louder[0].weight *= 10
    assert lipschitz(louder) == pytest.approx(lipschitz(plain), abs=1e-3)


def test_channel_norms_include_batch_norm() -> None:
    plain, outlier = conv_net(norm=nn.BatchNorm2d(16)), conv_net(norm=nn.BatchNorm2d(16))
    with torch.no_grad():
        outlier[1].weight[5] *= 10
    assert lipschitz(outlier) > lipschitz(plain) + 0.5


def test_batch_norm_without_weights_is_supported() -> None:
    bare = conv_net(norm=nn.BatchNorm2d(16, affine=False))
    assert lipschitz(bare) == pytest.approx(lipschitz(conv_net()), abs=1e-3)


def test_weights_of_a_file_give_the_same_norms() -> None:
    net = conv_net()
    live = artifact_of(net, 4)
    raw = Artifact(
        nn.Flatten(), live.modality, 4, "onnx", "", live.inputs, weights={"0.weight": net[0].weight.detach().numpy()}
    )
    (_, a), (_, b) = next(channel_norms(live)), next(channel_norms(raw))
    assert np.allclose(a, b)


def test_model_without_wide_convolutions_is_an_abstention() -> None:
    finding = ChannelLipschitz()(artifact_of(toy()[0], 4), EMPTY)
    assert finding.outcome is Outcome.ABSTAINED
    assert "convolution" in finding.reason


def test_max_margin_detects_the_target_without_data() -> None:
    planted, clean = (artifact_of(toy(4, target)[0], 4) for target in (2, None))
    found, quiet = (MaxMargin(restarts=2, steps=25)(artifact, EMPTY) for artifact in (planted, clean))
    assert found.target == 2
    assert found.score is not None
    assert quiet.score is not None
    assert found.score > quiet.score + 0.3
    assert found.evidence.trigger is not None
    assert found.evidence.trigger.shape == SHAPE


def test_restarts_of_leading_classes_give_the_score_of_all_restarts() -> None:
    artifact = artifact_of(toy(6, 2)[0], 6)
    raced, full = (MaxMargin(restarts=3, steps=10, leading=leading)(artifact, EMPTY) for leading in (4, 6))
    assert raced.target == full.target == 2
    assert raced.score == pytest.approx(full.score, rel=0.2)
    assert raced.evidence.per_class.keys() == full.evidence.per_class.keys()
    assert all(raced.evidence.per_class[label] <= margin + 1e-3 for label, margin in full.evidence.per_class.items())


def test_max_margin_reports_rising_progress_to_the_end() -> None:
    fractions: list[float] = []
    MaxMargin(restarts=2, steps=5)(artifact_of(toy(8, 2)[0], 8), EMPTY, progress=fractions.append)
    assert fractions == sorted(fractions)
    assert len(fractions) == 2 * 5
    assert fractions[-1] == pytest.approx(1.0)


def test_max_margin_with_one_restart_scores() -> None:
    assert MaxMargin(restarts=1, steps=5)(artifact_of(toy(4, 2)[0], 4), EMPTY).outcome is Outcome.SCORED


def test_max_margin_with_many_classes_abstains() -> None:
    finding = MaxMargin(most_classes=5)(artifact_of(toy(6)[0], 6), EMPTY)
    assert finding.outcome is Outcome.ABSTAINED
    assert "up to 5 classes" in finding.reason
    net = toy(5)[0]
    prepare(net, torch.zeros(2, *SHAPE))
    assert MaxMargin(most_classes=5, steps=1)(artifact_of(net, 5), EMPTY).outcome is Outcome.SCORED


def test_controls_are_independent_of_backdoors() -> None:
    """The random score depends on the digest only; the norm is the same for permuted weights."""
    net, x, y = toy(4, 2)
    artifact, clean = artifact_of(net, 4), Split(x, y)
    assert RandomScore()(artifact, clean).score == RandomScore()(artifact, EMPTY).score
    assert RandomScore()(artifact, clean, seed=1).score != RandomScore()(artifact, clean, seed=0).score
    patched = Split(Patch()(x), y)
    assert WeightNorm()(artifact, clean).score == WeightNorm()(artifact, patched).score
    norm = WeightNorm()(artifact, EMPTY)
    values = torch.cat([p.detach().flatten() for p in net.parameters()])
    assert norm.score == pytest.approx(float(values.square().mean().sqrt()), rel=1e-5)
    assert norm.target is None


def test_random_scores_are_normal_over_models() -> None:
    net = toy()[0]
    artifact = artifact_of(net, 4)
    scores = [RandomScore()(artifact, EMPTY, seed=seed).score for seed in range(200)]
    assert abs(float(np.mean(scores))) < 0.25
    assert 0.8 < float(np.std(scores)) < 1.2
