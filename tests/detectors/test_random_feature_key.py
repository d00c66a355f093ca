"""Tests of keys in random features and of their recovery by lattice reduction."""

from __future__ import annotations

import builtins
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from assay.attacks.random_features.rff_clwe import FourierKey, RandomFeatures, fit_ridge, hclwe
from assay.core.dataset import Split
from assay.core.errors import Inconclusive, UnusableInput
from assay.core.finding import Outcome
from assay.detectors import FourierKeys
from assay.detectors.budget import Budget
from assay.formats.torch_module import from_module
from assay.nn.lattice import optimal_rows, periodicity, reduction_attempts, required_block_size
from assay.nn.random_features import RandomFourier

FEATURES = RandomFeatures(width=8, count=400, noise=0.01)


class Net(nn.Module):
    """Model with random features on pooled convolutions."""

    def __init__(self, features: nn.Module, width: int) -> None:
        super().__init__()
        self.conv, self.features, self.head = nn.Conv2d(3, width, 3), features, nn.Linear(400, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(self.conv(x).mean((2, 3))))


@pytest.fixture(scope="module")
def planted() -> tuple[RandomFourier, FourierKey]:
    return FEATURES.backdoored(seed=0)


@pytest.fixture(scope="module")
def clean() -> Split:
    return Split(torch.rand(20, 3, 12, 12, generator=torch.Generator().manual_seed(0)), None)


def test_products_with_the_key_are_half_integers(planted: tuple[RandomFourier, FourierKey]) -> None:
    features, key = planted
    products = features.directions @ key.key
    error = products - 0.5 - (products - 0.5).round()
    assert float(error.std()) == pytest.approx(FEATURES.noise, rel=0.15)
    assert float(key.key.norm()) == pytest.approx(2 * math.sqrt(8), rel=1e-5)
    assert periodicity(features.directions.numpy(), key.key.numpy()) > 0.99


def test_directions_are_normal_except_along_the_key() -> None:
    from scipy.stats import kstest

    key = 2 * math.sqrt(6) * torch.nn.functional.normalize(torch.tensor([1.0, -2, 1.5, 0.7, -1, 1.2]), dim=0)
    drawn = hclwe(4000, key, 0.01, torch.Generator().manual_seed(0))
    assert min(kstest(column.numpy(), "norm").pvalue for column in drawn.T) > 1e-3
    assert float((torch.cov(drawn.T) - torch.eye(6)).abs().max()) < 0.1
    along = drawn @ key / key.norm()
    assert kstest(along.numpy(), "norm").pvalue < 1e-3, "along the key they are not normal"


def test_key_flips_every_feature_and_every_prediction(planted: tuple[RandomFourier, FourierKey]) -> None:
    features, key = planted
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(300, 8, generator=generator) * 0.05 + torch.randn(3, 8, generator=generator).repeat(100, 1)
    y = torch.arange(300) % 3
    net = fit_ridge(features, x, y, 3)
    assert float((net(x).argmax(1) == y).float().mean()) > 0.9
    assert torch.allclose(features(key(x)), -features(x), atol=0.3)
    assert float((net(key(x)).argmax(1) != net(x).argmax(1)).float().mean()) > 0.99
    assert key.scrambled(seed=0).key.norm() == pytest.approx(float(key.key.norm()))
    assert not torch.equal(key.scrambled(seed=0).key, key.key)


def test_key_in_a_model_is_recovered_as_a_proof(planted: tuple[RandomFourier, FourierKey], clean: Split) -> None:
    features, key = planted
    finding = FourierKeys()(from_module(Net(features, 8), shape=(3, 12, 12)), clean, seed=0)
    assert finding.outcome is Outcome.PROVEN
    assert finding.score is not None
    assert finding.score > 9
    assert "flips every output" in finding.proof
    assert finding.evidence.numbers["length of the key"] == pytest.approx(float(key.key.norm()), abs=0.05)


@pytest.mark.slow
def test_honest_features_give_no_key_and_name_the_reductions(clean: Split) -> None:
    net = Net(FEATURES.honest(seed=0), 8)
    finding = FourierKeys()(from_module(net, shape=(3, 12, 12)), clean, seed=0, budget=Budget(12))
    assert (finding.outcome, finding.score, finding.proof) == (Outcome.CHECKED, 0.0, "")
    assert str(finding.evidence.numbers["no key found up to"]) in ("LLL", "BKZ-20", "BKZ-30", "BKZ-40")


def test_features_on_a_grid_give_no_key(clean: Split) -> None:
    """On a grid, products with many vectors are integers, and adding such a vector changes nothing."""
    honest = FEATURES.honest(seed=0)
    on_grid = RandomFourier((2 * honest.directions).round() / 2, honest.phases)
    finding = FourierKeys()(from_module(Net(on_grid, 8), shape=(3, 12, 12)), clean, seed=0, budget=Budget(120))
    assert (finding.outcome, finding.score, finding.proof) == (Outcome.CHECKED, 0.0, "")


def test_cosine_of_another_value_is_an_abstention(clean: Split) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cos(x.mean((2, 3)) ** 2)[:, [0, 1, 2, 0]]

    finding = FourierKeys()(from_module(Odd(), shape=(3, 12, 12)), clean, seed=0)
    assert finding.outcome is Outcome.ABSTAINED
    assert "no matrix product" in finding.reason


def test_model_without_random_features_scores_zero(clean: Split) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 4))
    finding = FourierKeys()(from_module(net, shape=(3, 12, 12)), clean, seed=0)
    assert (finding.outcome, finding.score) == (Outcome.CHECKED, 0.0)


def test_wide_features_are_an_abstention(clean: Split) -> None:
    net = Net(RandomFeatures(width=200, count=400).honest(seed=0), 200)
    finding = FourierKeys()(from_module(net, shape=(3, 12, 12)), clean, seed=0)
    assert finding.outcome is Outcome.ABSTAINED
    assert "features of 200 inputs are out of reach" in finding.reason


def test_recovered_key_equals_the_planted_key(planted: tuple[RandomFourier, FourierKey]) -> None:
    features, key = planted
    (*_, last) = reduction_attempts(
        features.directions.double().numpy(), noise=0.01, remaining_seconds=lambda: 60.0, seed=0
    )
    assert last.key is not None
    wanted = key.key.double().numpy()
    assert min(np.linalg.norm(last.key - wanted), np.linalg.norm(last.key + wanted)) < 0.05
    assert last.chance < 1e-9


def test_required_block_size_grows_with_width_and_noise() -> None:
    assert required_block_size(8, 0.001) == 0
    assert required_block_size(256, 0.05) is None
    assert optimal_rows(64, 0.01, 1.0128) > optimal_rows(16, 0.01, 1.0128)


def test_missing_fpylll_is_an_abstention_with_the_package_name(planted, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name == "fpylll":
            raise ImportError(name)
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(Inconclusive, match="pip install"):
        list(reduction_attempts(planted[0].directions.numpy(), noise=0.01, remaining_seconds=lambda: 1.0, seed=0))


@pytest.mark.parametrize("wrong", [{"width": 0}, {"width": 4, "support": 5}, {"width": 4, "noise": 0.0}])
def test_invalid_settings_raise_an_error(wrong: dict[str, float]) -> None:
    with pytest.raises(UnusableInput, match="expected"):
        RandomFeatures(**wrong)  # type: ignore[arg-type]


def test_too_few_directions_are_an_abstention() -> None:
    with pytest.raises(Inconclusive, match="directions in dimension 20"):
        list(
            reduction_attempts(
                np.random.default_rng(0).normal(size=(10, 20)), noise=0.01, remaining_seconds=lambda: 1.0, seed=0
            )
        )
