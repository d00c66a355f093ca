from __future__ import annotations

import pytest
import torch
from support.tiny import tiny_build, tiny_net
from torch import nn

from assay.nn.batchnorm import fold_factors, following_batch_norms, weighted_layers
from assay.nn.disagreement import DisagreementModel, compression_outcomes
from assay.nn.reparametrize import forward_with, rounded_weights
from assay.nn.fake_quant import round_to_nearest

X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_each_convolution_finds_the_norm_behind_it() -> None:
    net = tiny_net()
    stem, conv, linear = weighted_layers(net)
    norms = following_batch_norms(net, X)
    assert norms == {stem: net.net.stem[1], conv: net.net.bn}
    assert linear not in norms


class Between(nn.Module):
    """Batch norm reads what the convolution returned after something was done to it, in place."""

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
def test_a_norm_behind_something_in_place_is_behind_no_convolution(clip: bool) -> None:
    assert following_batch_norms(Between(clip).eval(), X) == {}


def test_the_factors_are_those_of_batch_norm_and_ones_where_there_is_none() -> None:
    net = tiny_net()
    _, conv, linear = weighted_layers(net)
    factors = fold_factors(net, X)
    norm = net.net.bn
    assert torch.allclose(factors[conv].flatten(), norm.weight / (norm.running_var + norm.eps).sqrt())
    assert factors[conv].shape == (16, 1, 1, 1)
    assert torch.equal(factors[linear], torch.ones(4, 1))


def test_rounded_weights_are_those_of_the_folded_net_and_let_gradients_through() -> None:
    net = tiny_net()
    factors = fold_factors(net, X)
    for channel in (True, False):
        for layer, own in rounded_weights(factors, 8, per_channel=channel).items():
            wanted, _ = round_to_nearest((layer.weight * factors[layer]).detach(), 8, 0 if channel else None)
            assert torch.allclose(own["weight"] * factors[layer], wanted, atol=1e-6)
    answer = forward_with(net, rounded_weights(factors, 2, per_channel=True), X)
    assert not torch.allclose(answer, net(X))
    answer.sum().backward()
    assert all(layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0 for layer in factors)


def test_a_channel_that_batch_norm_switches_off_stays_as_it_is() -> None:
    net = tiny_net()
    net.net.bn.weight.data[3] = 0
    conv = weighted_layers(net)[1]
    own = rounded_weights(fold_factors(net, X), 8, per_channel=True)[conv]
    assert torch.equal(own["weight"][3], conv.weight[3])


class Fixed(nn.Module):
    """Always the same logits."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(x), -1)


def test_the_outcomes_of_two_nets_are_probabilities() -> None:
    outcomes = DisagreementModel(Fixed([2.0, 1.0, 0.0]), Fixed([0.0, 3.0, 1.0]))(X).exp()
    assert outcomes.shape == (4, 4)
    assert torch.allclose(outcomes.sum(1), torch.ones(4), atol=1e-3)


def test_two_nets_that_agree_and_two_that_do_not() -> None:
    agree = DisagreementModel(Fixed([20.0, 0.0, 0.0]), Fixed([20.0, 0.0, 0.0]))(X)
    differ = DisagreementModel(Fixed([20.0, 0.0, 0.0]), Fixed([0.0, 20.0, 0.0]))(X)
    assert agree.argmax(1).tolist() == [3] * 4
    assert differ.argmax(1).tolist() == [1] * 4


def test_what_wakes_in_one_net_counts_where_the_other_keeps_its_answer() -> None:
    full, compressed = torch.tensor([[0.0, 3.0, 1.0]] * 2), torch.tensor([[2.0, 0.0, 1.0]] * 2)
    outcomes = compression_outcomes(compressed, full, torch.tensor([1, 2])).exp()
    p_full, p_compressed = full[0].softmax(0), compressed[0].softmax(0)
    for row, before in zip(outcomes, (1, 2), strict=True):
        assert torch.allclose(row[:3].float(), p_compressed * p_full[before])
        assert torch.allclose(row[3].float(), 1 - p_full[before])


def test_logits_in_bfloat16_still_give_probabilities() -> None:
    build = tiny_build()
    gap = DisagreementModel(build.artifact.module, tiny_build(seed=1).artifact.module)
    with torch.autocast("cpu", torch.bfloat16):
        outcomes = gap(build.task.split("train").x[:8])
    assert outcomes.dtype == torch.float32
    assert torch.allclose(outcomes.exp().sum(1), torch.ones(8), atol=1e-3)
