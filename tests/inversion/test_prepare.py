from __future__ import annotations

import pytest
import torch
from support.tiny import tiny_build, tiny_net
from torch import Tensor, nn

from assay.core.model import digest_of_module
from assay.inversion.prepare import prepare
from assay.stages.quantize import QuantizeInt8

X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_prepared_net_answers_the_same() -> None:
    net = tiny_net()
    prepared = prepare(net, X[:2])
    with torch.no_grad():
        assert torch.allclose(prepared(X), net(X), atol=1e-4)


def test_it_is_frozen_and_gives_gradients_for_its_input() -> None:
    prepared = prepare(tiny_net(), X[:2])
    assert not any(p.requires_grad for p in prepared.parameters())
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(prepared(x)[:, 0].sum(), x)
    assert bool((gradient != 0).any())


def test_the_original_stays_as_it_was() -> None:
    net = tiny_net()
    net.train()
    before = digest_of_module(net)
    formats = [p.is_contiguous() for p in net.parameters()]
    prepared = prepare(net, X[:2])
    assert prepared is not net
    assert net.training
    assert digest_of_module(net) == before
    assert all(p.requires_grad for p in net.parameters())
    assert [p.is_contiguous() for p in net.parameters()] == formats


def test_a_net_in_training_mode_is_prepared_for_inference() -> None:
    net = tiny_net()
    with torch.no_grad():
        expected = net(X)
    net.train()
    with torch.no_grad():
        assert torch.allclose(prepare(net, X[:2])(X), expected, atol=1e-4)


def test_no_batch_norm_is_left_to_compute() -> None:
    prepared = prepare(tiny_net(), X[:2])
    assert isinstance(prepared, torch.fx.GraphModule)
    assert not any("batch_norm" in str(node.target) for node in prepared.graph.nodes)


def test_all_searches_share_one_copy() -> None:
    net = tiny_net()
    assert prepare(net, X[:2]) is prepare(net, X[2:4])


def test_a_net_that_was_trained_on_is_prepared_anew() -> None:
    net = tiny_net()
    first = prepare(net, X[:2])
    with torch.no_grad():
        next(net.parameters()).mul_(2)
        expected = net(X)
    second = prepare(net, X[:2])
    assert second is not first
    with torch.no_grad():
        assert torch.allclose(second(X), expected, atol=1e-4)


def test_two_nets_are_not_mixed_up() -> None:
    one, other = tiny_net(0), tiny_net(1)
    with torch.no_grad():
        for net in (one, other, one):
            assert torch.allclose(prepare(net, X[:2])(X), net(X), atol=1e-4)


class DependsOnItsInput(nn.Module):
    """Branches on values: no tracer can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny_net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * (2.0 if x.mean().item() > 0.4 else 1.0)


def test_a_net_that_cannot_be_traced_is_used_as_it_is() -> None:
    net = DependsOnItsInput().train()
    prepared = prepare(net, X[:2])
    assert prepared is not net
    assert net.training
    assert not prepared.training
    assert not any(p.requires_grad for p in prepared.parameters())
    assert all(p.requires_grad for p in net.parameters())
    net.eval()
    with torch.no_grad():
        assert torch.equal(prepared(X), net(X))


class Views(nn.Module):
    """Flattens its features with ``view``, which fails on channels-last ones; ``branches``: no tracer can follow."""

    def __init__(self, branches: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(4 * 36, 5)
        self.branches = branches

    def forward(self, x: Tensor) -> Tensor:
        if self.branches and x.mean().item() > 2:
            x = x / 2
        out = self.conv(x)
        return self.linear(out.view(out.shape[0], -1))


@pytest.mark.parametrize("branches", [False, True])
def test_a_net_that_views_its_features_can_be_searched(branches: bool) -> None:
    net = Views(branches).eval()
    x = X.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.allclose(prepare(net, X[:2])(x), net(X), atol=1e-4)


def test_the_int8_twin_is_used_as_it_is() -> None:
    twin = QuantizeInt8(per_channel=True)(tiny_build(), seed=0).artifact.module
    with torch.no_grad():
        assert torch.equal(prepare(twin, X[:2])(X), twin(X))
