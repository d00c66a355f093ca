"""Tests of the preparation of models for searches."""

from __future__ import annotations

import pytest
import torch
from support.tiny import tiny_build, tiny_net
from torch import Tensor, nn

from assay.core.model import digest_of_module
from assay.inversion.prepare import prepare
from assay.stages.quantize import QuantizeInt8

X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_prepared_model_gives_same_logits() -> None:
    model = tiny_net()
    prepared = prepare(model, X[:2])
    with torch.no_grad():
        assert torch.allclose(prepared(X), model(X), atol=1e-4)


def test_prepared_model_is_frozen_and_has_input_gradients() -> None:
    prepared = prepare(tiny_net(), X[:2])
    assert not any(p.requires_grad for p in prepared.parameters())
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(prepared(x)[:, 0].sum(), x)
    assert bool((gradient != 0).any())


def test_original_model_stays_unchanged() -> None:
    model = tiny_net()
    model.train()
    before = digest_of_module(model)
    formats = [p.is_contiguous() for p in model.parameters()]
    prepared = prepare(model, X[:2])
    assert prepared is not model
    assert model.training
    assert digest_of_module(model) == before
    assert all(p.requires_grad for p in model.parameters())
    assert [p.is_contiguous() for p in model.parameters()] == formats


def test_model_in_training_mode_is_prepared_for_inference() -> None:
    model = tiny_net()
    with torch.no_grad():
        expected = model(X)
    model.train()
    with torch.no_grad():
        assert torch.allclose(prepare(model, X[:2])(X), expected, atol=1e-4)


def test_batch_norm_is_folded() -> None:
    prepared = prepare(tiny_net(), X[:2])
    assert isinstance(prepared, torch.fx.GraphModule)
    assert not any("batch_norm" in str(node.target) for node in prepared.graph.nodes)


def test_copy_is_cached() -> None:
    model = tiny_net()
    assert prepare(model, X[:2]) is prepare(model, X[2:4])


def test_changed_weights_are_prepared_again() -> None:
    model = tiny_net()
    first = prepare(model, X[:2])
    with torch.no_grad():
        next(model.parameters()).mul_(2)
        expected = model(X)
    second = prepare(model, X[:2])
    assert second is not first
    with torch.no_grad():
        assert torch.allclose(second(X), expected, atol=1e-4)


def test_cache_separates_two_models() -> None:
    one, other = tiny_net(0), tiny_net(1)
    with torch.no_grad():
        for model in (one, other, one):
            assert torch.allclose(prepare(model, X[:2])(X), model(X), atol=1e-4)


class DependsOnItsInput(nn.Module):
    """Branches on values, so that tracing fails."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny_net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * (2.0 if x.mean().item() > 0.4 else 1.0)


def test_untraceable_model_is_copied() -> None:
    model = DependsOnItsInput().train()
    prepared = prepare(model, X[:2])
    assert prepared is not model
    assert model.training
    assert not prepared.training
    assert not any(p.requires_grad for p in prepared.parameters())
    assert all(p.requires_grad for p in model.parameters())
    model.eval()
    with torch.no_grad():
        assert torch.equal(prepared(X), model(X))


class Views(nn.Module):
    """Flattens its features with ``view``, which fails for channels-last; with ``branches``, tracing fails too."""

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
def test_model_with_views_accepts_channels_last(branches: bool) -> None:
    model = Views(branches).eval()
    x = X.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.allclose(prepare(model, X[:2])(x), model(X), atol=1e-4)


def test_int8_surrogate_is_copied() -> None:
    surrogate = QuantizeInt8(per_channel=True)(tiny_build(), seed=0).artifact.module
    with torch.no_grad():
        assert torch.equal(prepare(surrogate, X[:2])(X), surrogate(X))
