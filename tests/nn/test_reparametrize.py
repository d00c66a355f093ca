"""Tests of batch norm folding, replaced weights and disagreement models."""

from __future__ import annotations

import pytest
import torch
from support.tiny import tiny_build, tiny_net
from torch import nn

from assay.nn.batchnorm import fold_factors, following_batch_norms, weighted_layers
from assay.nn.disagreement import DisagreementModel, compression_outcomes
from assay.nn.fake_quant import round_to_nearest
from assay.nn.reparametrize import forward_with, rounded_weights

X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_each_convolution_has_its_following_batch_norm() -> None:
    net = tiny_net()
    stem, conv, linear = weighted_layers(net)
    norms = following_batch_norms(net, X)
    assert norms == {stem: net.net.stem[1], conv: net.net.bn}
    assert linear not in norms


class InPlaceBetween(nn.Module):
    """Changes the convolution's output in place before the batch norm."""

    def __init__(self, clip: bool) -> None:
        super().__init__()
        self.conv, self.bn, self.clip = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), clip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv(x)
        if self.clip:
            out.relu_()
        else:
            out += x
        return self.bn(out)


@pytest.mark.parametrize("clip", [True, False])
def test_in_place_operator_before_batch_norm_excludes_it(clip: bool) -> None:
    assert following_batch_norms(InPlaceBetween(clip).eval(), X) == {}


def test_fold_factors_are_batch_norm_scales_or_ones() -> None:
    net = tiny_net()
    _, conv, linear = weighted_layers(net)
    factors = fold_factors(net, X)
    norm = net.net.bn
    assert torch.allclose(factors[conv].flatten(), norm.weight / (norm.running_var + norm.eps).sqrt())
    assert factors[conv].shape == (16, 1, 1, 1)
    assert torch.equal(factors[linear], torch.ones(4, 1))


def test_rounded_weights_match_folded_rounding_and_pass_gradients() -> None:
    net = tiny_net()
    factors = fold_factors(net, X)
    for channel in (True, False):
        for layer, own in rounded_weights(factors, 8, per_channel=channel).items():
            expected, _ = round_to_nearest((layer.weight * factors[layer]).detach(), 8, 0 if channel else None)
            assert torch.allclose(own["weight"] * factors[layer], expected, atol=1e-6)
    logits = forward_with(net, rounded_weights(factors, 2, per_channel=True), X)
    assert not torch.allclose(logits, net(X))
    logits.sum().backward()
    assert all(layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0 for layer in factors)


def test_channel_with_zero_scale_stays_unchanged() -> None:
    net = tiny_net()
    net.net.bn.weight.data[3] = 0
    conv = weighted_layers(net)[1]
    own = rounded_weights(fold_factors(net, X), 8, per_channel=True)[conv]
    assert torch.equal(own["weight"][3], conv.weight[3])


class ConstantModel(nn.Module):
    """Returns the same logits for all images."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(x), -1)


def test_outcomes_are_probabilities() -> None:
    outcomes = DisagreementModel(ConstantModel([2.0, 1.0, 0.0]), ConstantModel([0.0, 3.0, 1.0]))(X).exp()
    assert outcomes.shape == (4, 4)
    assert torch.allclose(outcomes.sum(1), torch.ones(4), atol=1e-3)


def test_agreement_and_disagreement_are_most_likely() -> None:
    agree = DisagreementModel(ConstantModel([20.0, 0.0, 0.0]), ConstantModel([20.0, 0.0, 0.0]))(X)
    differ = DisagreementModel(ConstantModel([20.0, 0.0, 0.0]), ConstantModel([0.0, 20.0, 0.0]))(X)
    assert agree.argmax(1).tolist() == [3] * 4
    assert differ.argmax(1).tolist() == [1] * 4


def test_compression_outcomes_require_unchanged_full_prediction() -> None:
    full, compressed = torch.tensor([[0.0, 3.0, 1.0]] * 2), torch.tensor([[2.0, 0.0, 1.0]] * 2)
    outcomes = compression_outcomes(compressed, full, torch.tensor([1, 2])).exp()
    p_full, p_compressed = full[0].softmax(0), compressed[0].softmax(0)
    for row, predicted in zip(outcomes, (1, 2), strict=True):
        assert torch.allclose(row[:3].float(), p_compressed * p_full[predicted])
        assert torch.allclose(row[3].float(), 1 - p_full[predicted])


def test_bfloat16_logits_give_probabilities() -> None:
    build = tiny_build()
    model = DisagreementModel(build.artifact.module, tiny_build(seed=1).artifact.module)
    with torch.autocast("cpu", torch.bfloat16):
        outcomes = model(build.task.split("train").x[:8])
    assert outcomes.dtype == torch.float32
    assert torch.allclose(outcomes.exp().sum(1), torch.ones(8), atol=1e-3)
