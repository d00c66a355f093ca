"""Tests of the difference between trained weights and hand-made weights with noise."""

from __future__ import annotations

import numpy as np

from assay.graphs.dependence import looks_trained

GENERATOR = np.random.default_rng(0)


def noisy(weights: np.ndarray, amount: float) -> np.ndarray:
    return (weights * (1 + amount * GENERATOR.normal(size=weights.shape))).astype(np.float32)


def test_few_levels_with_noise_do_not_look_trained() -> None:
    signs = GENERATOR.integers(0, 2, (8, 3, 5, 5)) * 2.0 - 1
    for amount in (1e-6, 1e-3, 0.03):
        assert not looks_trained(noisy(0.1 * signs, amount))
        assert not looks_trained(noisy(0.1 * signs[:1], amount)), "a single template"


def test_large_factors_do_not_look_trained() -> None:
    assert not looks_trained((1602 * GENERATOR.normal(size=(8, 3, 3, 3))).astype(np.float32))


def test_copies_of_one_row_do_not_look_trained() -> None:
    row = GENERATOR.normal(size=(1, 3, 5, 5))
    assert not looks_trained(noisy(np.repeat(row, 8, 0), 0.01))
    assert not looks_trained(noisy(np.linspace(0.5, 2, 8)[:, None, None, None] * row, 0.01))


def test_random_uniform_and_quantized_weights_look_trained() -> None:
    for shape in ((4, 3, 3, 3), (16, 3, 3, 3), (64, 64), (10, 64), (2, 128)):
        for weights in (GENERATOR.normal(size=shape), GENERATOR.uniform(-1, 1, shape), GENERATOR.laplace(size=shape)):
            assert looks_trained((0.05 * weights).astype(np.float32)), shape
    levels = np.round(GENERATOR.normal(size=(64, 64)) * 2) * np.float32(0.013)
    assert looks_trained(levels.astype(np.float32))
    assert looks_trained(levels.astype(np.float16).astype(np.float32))
    scaled = np.round(GENERATOR.normal(size=(64, 64)) * 2) * GENERATOR.uniform(0.01, 0.02, (64, 1))
    assert looks_trained(scaled.astype(np.float32)), "a scale for each row"
