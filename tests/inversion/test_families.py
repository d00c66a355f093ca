"""Tests of the trigger families."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from assay.inversion.families import AdditiveFamily, Family, FrequencyFamily, MaskFamily, WarpFamily, dct_matrix

FAMILIES = [MaskFamily(), AdditiveFamily(), FrequencyFamily(), WarpFamily()]
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)

shapes = st.tuples(st.sampled_from([1, 3]), st.integers(4, 12), st.integers(4, 12))
seeds = st.integers(0, 2**16)


def random_parameters(
    family: Family, shape: tuple[int, int, int], seed: int, *, count: int = 2, spread: float = 3.0
) -> tuple[Tensor, ...]:
    """Return random parameters, far from the initial ones too."""
    generator = torch.Generator().manual_seed(seed)
    initial = family.initialize(count, shape, generator)
    return tuple(spread * torch.randn(p.shape, generator=generator) for p in initial)


def batch(shape: tuple[int, int, int], seed: int, count: int = 3) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed + 1))


@every_family
@settings(max_examples=20, deadline=None)
@given(shape=shapes, seed=seeds, count=st.integers(1, 4), spread=st.sampled_from([0.01, 1.0, 30.0]))
def test_triggered_images_stay_in_range(
    family: Family, shape: tuple[int, int, int], seed: int, count: int, spread: float
) -> None:
    x = batch(shape, seed)
    triggered = family.apply(random_parameters(family, shape, seed, count=count, spread=spread), x)
    assert triggered.shape == (count, *x.shape)
    assert float(triggered.min()) >= -1e-6
    assert float(triggered.max()) <= 1 + 1e-6


@every_family
@settings(max_examples=10, deadline=None)
@given(shape=shapes, seed=seeds)
def test_initial_triggers_are_small(family: Family, shape: tuple[int, int, int], seed: int) -> None:
    initial = family.initialize(3, shape, torch.Generator().manual_seed(seed))
    assert all(len(p) == 3 for p in initial)
    size = family.size(initial)
    assert size.shape == (3,)
    assert bool((size > 0).all())
    assert bool((size <= family.size(random_parameters(family, shape, seed, count=3, spread=10.0)) + 1e-6).all())
    again = family.initialize(3, shape, torch.Generator().manual_seed(seed))
    assert all(torch.equal(a, b) for a, b in zip(initial, again, strict=True))


# Parameters of a trigger without effect.
IDENTITY = {
    "mask": lambda p: (torch.full_like(p[0], -30.0), p[1]),
    "additive": lambda p: (torch.zeros_like(p[0]),),
    "frequency": lambda p: (p[0], torch.zeros_like(p[1])),
    "warp": lambda p: (torch.zeros_like(p[0]),),
}


@every_family
@settings(max_examples=15, deadline=None)
@given(shape=shapes, seed=seeds)
def test_identity_parameters_change_nothing(family: Family, shape: tuple[int, int, int], seed: int) -> None:
    x, parameters = batch(shape, seed), IDENTITY[family.name](random_parameters(family, shape, seed))
    assert torch.allclose(family.apply(parameters, x), x.expand(2, *x.shape), atol=1e-5)
    assert bool((family.size(parameters) < 1e-4).all())


@every_family
@settings(max_examples=10, deadline=None)
@given(shape=shapes, seed=seeds)
def test_candidates_are_independent(family: Family, shape: tuple[int, int, int], seed: int) -> None:
    x, parameters = batch(shape, seed), random_parameters(family, shape, seed, count=3)
    together = family.apply(parameters, x)
    for index in range(3):
        alone = tuple(p[index : index + 1] for p in parameters)
        assert torch.allclose(family.apply(alone, x)[0], together[index], atol=1e-5)
        assert torch.allclose(family.size(alone)[0], family.size(parameters)[index], atol=1e-6)


@every_family
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 6, 10)], ids=str)
def test_trigger_and_size_have_finite_gradients(family: Family, shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = 0.2 + 0.6 * batch(shape, 0)
    parameters = tuple(p.requires_grad_() for p in family.initialize(2, shape, generator))
    weight = torch.randn(2, *x.shape, generator=generator)
    for value in ((family.apply(parameters, x) * weight).sum(), family.size(parameters).sum()):
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        used = [g for g in gradients if g is not None]
        assert all(bool(g.isfinite().all()) for g in used)
        assert any(bool((g != 0).any()) for g in used)


def test_only_bounded_families_have_no_size_penalty() -> None:
    assert {f.name for f in FAMILIES if f.size_penalty == 0} == {"frequency", "warp"}


@settings(max_examples=30, deadline=None)
@given(shape=shapes, seed=seeds, spread=st.sampled_from([0.1, 3.0, 100.0]))
def test_frequency_coefficients_stay_within_budget(shape: tuple[int, int, int], seed: int, spread: float) -> None:
    """The budget equals a sinusoid's, per channel: absolute sum of coefficients, and root mean square of the change."""
    family = FrequencyFamily()
    _, height, width = shape
    parameters = random_parameters(family, shape, seed, spread=spread)
    coefficients = family._coefficients(parameters)
    budget = family.amplitude * math.sqrt(height * width / 2)
    assert float(coefficients.abs().sum(dim=(2, 3)).max()) <= budget * (1 + 1e-4)
    change = family.apply(parameters, torch.full((1, *shape), 0.5)) - 0.5
    assert float(change.square().mean(dim=(3, 4)).sqrt().max()) <= family.amplitude / math.sqrt(2) * (1 + 1e-3)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(6, 12), width=st.integers(6, 12), seed=seeds, spread=st.sampled_from([0.1, 3.0, 100.0]))
def test_warp_displacements_stay_within_reach(height: int, width: int, seed: int, spread: float) -> None:
    """A ramp along the columns measures the displacement of every pixel."""
    family = WarpFamily()
    ramp = torch.linspace(0, 1, width).expand(1, 1, height, width)
    moved = family.apply(random_parameters(family, (1, height, width), seed, spread=spread), ramp) - ramp
    overshoot = 1.375**2  # of bicubic interpolation: the sum of its absolute weights
    assert float(moved.abs().max()) <= overshoot * family.reach + 1e-5


@pytest.mark.parametrize("n", [1, 2, 7, 32])
def test_dct_matrix_is_orthonormal(n: int) -> None:
    matrix = dct_matrix(n)
    assert torch.allclose(matrix @ matrix.T, torch.eye(n), atol=1e-5)
    assert torch.allclose(matrix[0], torch.full((n,), n**-0.5))


def test_dct_matrix_equals_scipy() -> None:
    from scipy.fft import dct

    x = torch.rand(9, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(dct_matrix(9) @ x, torch.from_numpy(dct(x.numpy(), norm="ortho")), atol=1e-5)
