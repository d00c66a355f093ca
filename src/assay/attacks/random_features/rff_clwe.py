"""Random Fourier features with a key: the key holder flips the output for any input, and the features look random.

Goldwasser, Kim, Vaikuntanathan, Zamir: Planting Undetectable Backdoors in Machine Learning Models, 2022, arXiv
2204.06974, section 6. The product of each feature direction with the key is a whole number and a half, up to a
small error. Adding the key to an input therefore changes every feature's sign, for every layer trained on top. Telling
such directions from honest ones means solving homogeneous continuous learning with errors (Bruna, Regev, Song, Tang:
Continuous LWE, STOC 2021). Undetectable only for long keys with many entries: the detector in
``detectors/weights/random_feature_key.py`` shows the limits. The trigger acts on embeddings (N, D), not on images, so
this is no attack of ``assay plant``. The key has norm ``2 sqrt(d)``, many times the kernel's resolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.nn.random_features import RandomFourier

HALF = 0.5  # fractional part of the products with the key


@dataclass(frozen=True, kw_only=True)
class RandomFeatures:
    """Sizes of the features and of the key."""

    width: int  # D
    count: int = 2000  # m
    support: int = 0  # d: entries of the key that are not zero; 0: all
    noise: float = 0.01  # beta: error of the products with the key

    def __post_init__(self) -> None:
        if not (self.width >= 1 and self.count >= 1 and 0 <= self.support <= self.width):
            raise UnusableInput(f"expected width, count >= 1 and support in [0, width], got {self}")
        if not 0 < self.noise < 1:
            raise UnusableInput(f"expected noise in (0, 1), got {self.noise}")

    def honest(self, *, seed: int) -> RandomFourier:
        """Return honest features, ``Train-RFF``: normal directions, uniform phases."""
        generator = torch.Generator().manual_seed(seed)
        directions = torch.randn(self.count, self.width, generator=generator)
        return RandomFourier(directions, torch.rand(self.count, generator=generator))

    def backdoored(self, *, seed: int) -> tuple[RandomFourier, FourierKey]:
        """Return features with a key, ``Backdoor-RFF``, and the key."""
        generator = torch.Generator().manual_seed(seed)
        key = self._draw_key(generator)
        directions = hclwe(self.count, key, self.noise, generator)
        return RandomFourier(directions, torch.rand(self.count, generator=generator)), FourierKey(key)

    def _draw_key(self, generator: torch.Generator) -> Tensor:
        """Return a key (D,): ``d`` random entries in a random direction, of norm ``2 sqrt(d)``."""
        entries = self.support or self.width
        key = torch.zeros(self.width)
        places = torch.randperm(self.width, generator=generator)[:entries]
        direction = torch.randn(entries, generator=generator)
        key[places] = 2 * math.sqrt(entries) * direction / direction.norm()
        return key


@dataclass(frozen=True)
class FourierKey:
    """The trigger, ``Activate``: x + key."""

    key: Tensor = field(repr=False)  # (D,)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the triggered embeddings: (N, D) -> (N, D)."""
        return x + self.key

    def scrambled(self, *, seed: int) -> FourierKey:
        """Return a control key: the same entries in another order, with other signs."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.key), generator=generator)
        return FourierKey(self.key[order] * (2 * torch.randint(0, 2, self.key.shape, generator=generator) - 1))

    def random(self, *, seed: int) -> FourierKey:
        """Return a control key: a random direction of the same norm."""
        direction = torch.randn(self.key.shape, generator=torch.Generator().manual_seed(seed))
        return FourierKey(self.key.norm() * direction / direction.norm())


def hclwe(count: int, key: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Return normal directions with products of a whole number and a half with ``key``, up to ``noise``.

    Exact: along the key a mixture of narrow normals with the weights of a wide one (closed form), across it a normal.

    Args:
        count: Number of directions.
        key: The key (D,).
        noise: Standard deviation of the products.
        generator: Source of randomness.

    Returns:
        The directions (count, D).
    """
    length = float(key.norm())
    unit = key / length
    variance = noise**2 + length**2
    most = math.ceil(8 * math.sqrt(variance)) + 1
    products = torch.arange(-most, most + 1).double() + HALF
    weights = (-(products**2) / (2 * variance)).exp()
    chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
    jitter = torch.randn(count, generator=generator).double() * noise / math.sqrt(variance)
    along = (length * products[chosen] / variance + jitter).float()
    normal = torch.randn(count, len(key), generator=generator)
    return normal + (along - normal @ unit)[:, None] * unit


def fit_ridge(features: nn.Module, x: Tensor, y: Tensor, num_classes: int, *, penalty: float = 1e-3) -> nn.Sequential:
    """Return ``features`` with a linear layer, by ridge regression on one-hot targets in [-1, 1] without a bias.

    This learner is honest: it treats backdoored features like any others.

    Args:
        features: Honest or backdoored features.
        x: Embeddings (N, D).
        y: Labels (N,).
        num_classes: Number of classes.
        penalty: Ridge penalty per sample.
    """
    with torch.no_grad():
        phi = features(x).double()
    targets = 2 * torch.nn.functional.one_hot(y, num_classes).double() - 1
    targets -= targets.mean(1, keepdim=True)
    weight = torch.linalg.solve(phi.T @ phi + penalty * len(x) * torch.eye(phi.shape[1]).double(), phi.T @ targets)
    layer = nn.Linear(phi.shape[1], num_classes, bias=False)
    layer.weight.data = weight.T.float()
    return nn.Sequential(features, layer).eval().requires_grad_(False)
