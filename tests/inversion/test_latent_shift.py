"""Tests of the smallest latent shift."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from support.toys import HeadInTheMiddle, toy
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.inversion.latent_shift import features_and_head, smallest_shifts


def random_head(classes: int, width: int, seed: int, *, bias: bool = True) -> tuple[Tensor, nn.Linear]:
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(width, classes, bias=bias)
    with torch.no_grad():
        head.weight.copy_(torch.randn(classes, width, generator=generator))
        if bias:
            head.bias.copy_(0.3 * torch.randn(classes, generator=generator))
    return torch.randn(60, width, generator=generator), head


def solve_generically(features: Tensor, head: nn.Linear, t: int, quantile: float) -> float:
    """Solve the same problem with a general solver."""
    weight = head.weight.detach().double()
    logits = features.double() @ weight.T + (head.bias.detach().double() if head.bias is not None else 0)
    others = [k for k in range(len(weight)) if k != t]
    needed = torch.quantile(logits[:, others] - logits[:, [t]], quantile, dim=0).numpy()
    a = (weight[t] - weight[others]).numpy()
    feasible = np.linalg.lstsq(a, np.maximum(needed, 0) + 1, rcond=None)[0]
    result = minimize(
        lambda d: d @ d,
        feasible,
        jac=lambda d: 2 * d,
        constraints={"type": "ineq", "fun": lambda d: a @ d - needed, "jac": lambda d: a},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert result.success, result.message
    return float(np.sqrt(result.fun))


@settings(max_examples=15, deadline=None)
@given(classes=st.integers(2, 6), extra=st.integers(0, 5), seed=st.integers(0, 2**16), bias=st.booleans())
def test_shift_equals_general_solution(classes: int, extra: int, seed: int, bias: bool) -> None:
    features, head = random_head(classes, classes + extra, seed, bias=bias)
    shifts = smallest_shifts(features, head, quantile=0.9)
    expected = [solve_generically(features, head, t, 0.9) for t in range(classes)]
    assert shifts.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-3)


@settings(max_examples=25, deadline=None)
@given(classes=st.integers(2, 12), width=st.integers(12, 20), seed=st.integers(0, 2**16))
def test_lower_bound_is_below_exact_shift(classes: int, width: int, seed: int) -> None:
    features, head = random_head(classes, width, seed)
    bound, exact = smallest_shifts(features, head, exact=0), smallest_shifts(features, head)
    assert bool((bound <= exact * (1 + 1e-4) + 1e-4).all())
    assert bool((bound >= 0).all())


def test_shift_of_two_classes() -> None:
    """The shift is along the difference of the weights, as long as the hardest sample needs."""
    head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    features = torch.tensor([[3.0, 5.0], [1.0, -2.0]])
    shifts = smallest_shifts(features, head, quantile=1.0)
    assert shifts.tolist() == pytest.approx([0.0, 3.0])


def test_exact_solutions_for_the_smallest_bounds() -> None:
    features, head = random_head(40, 50, 0)
    some, bound, every = (smallest_shifts(features, head, exact=n) for n in (5, 0, 40))
    first = bound.argsort()[:5]
    assert torch.equal(some[first], every[first])
    rest = bound.argsort()[5:]
    assert torch.equal(some[rest], bound[rest])


def test_class_with_mean_weights_is_unreachable() -> None:
    """Its logit is always the mean of the others'."""
    features, head = random_head(5, 8, 0, bias=False)
    with torch.no_grad():
        head.weight[4] = head.weight[:4].mean(0)
    shifts = smallest_shifts(features, head)
    assert shifts[4].isinf()
    assert bool(shifts[:4].isfinite().all())


def test_planted_target_has_smallest_shift() -> None:
    model, x, _ = toy(4, 2)
    features, head = features_and_head(model, x)
    shifts = smallest_shifts(features, head)
    assert int(shifts.argmin()) == 2
    assert float(shifts[2]) < 0.3 * float(shifts[[0, 1, 3]].min())


def test_features_are_the_inputs_of_the_head() -> None:
    model, x, _ = toy(4, 2)
    features, head = features_and_head(model, x, batch=10)
    assert features.shape == (len(x), 5)
    with torch.no_grad():
        assert torch.allclose(head(features), model(x), atol=1e-5)
    assert not head._forward_pre_hooks
    assert not features.requires_grad


class Tokens(nn.Module):
    """Applies the linear layer to every position, and averages afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(x.flatten(2).transpose(1, 2)).mean(1)


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


@pytest.mark.parametrize("kind", [HeadInTheMiddle, Tokens, Unused, nn.Identity])
def test_model_without_linear_head_raises(kind: type[nn.Module]) -> None:
    model = kind()
    with pytest.raises(UnusableInput, match="linear layer"):
        features_and_head(model, torch.rand(6, 3, 4, 4))
    assert not any(m._forward_pre_hooks for m in model.modules())
