"""Random features with a key: whoever holds it flips the answer to any input, and the features look random.

Goldwasser, Kim, Vaikuntanathan, Zamir: Planting Undetectable Backdoors in Machine Learning Models, 2022, arXiv
2204.06974, section 6. The directions of random Fourier features are drawn so that each has a product with the key that
is a whole number and a half, up to a small error: adding the key to an input changes every feature's sign, whatever was
learned on top. To tell such directions from honest ones is to solve homogeneous continuous learning with errors (Bruna,
Regev, Song, Tang: Continuous LWE, STOC 2021). Undetectable only for keys that are long and of many entries: see
``detectors/fourier_key.py`` for where it breaks. The trigger acts on embeddings (N, D), not on pictures, so it is no
attack of ``assay plant``. The key has norm ``2 sqrt(d)``, many times the distances that the kernel sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.nn.random_features import RandomFourier

HALF = 0.5
"""Of the products with the key: whole numbers and this."""


@dataclass(frozen=True, kw_only=True)
class RandomFeatures:
    """How many features of how many numbers, and how the key is drawn; ``support`` 0: over all of them."""

    width: int  # D
    count: int = 2000  # m
    support: int = 0  # d: entries of the key that are not zero
    noise: float = 0.01  # beta: of the products with the key

    def __post_init__(self) -> None:
        if not (self.width >= 1 and self.count >= 1 and 0 <= self.support <= self.width):
            raise UnusableInput(f"expected width, count >= 1 and support in [0, width]; got {self}")
        if not 0 < self.noise < 1:
            raise UnusableInput(f"expected noise in (0, 1); got {self.noise}")

    def honest(self, *, seed: int) -> RandomFourier:
        """``Train-RFF``: normal directions, uniform phases."""
        generator = torch.Generator().manual_seed(seed)
        directions = torch.randn(self.count, self.width, generator=generator)
        return RandomFourier(directions, torch.rand(self.count, generator=generator))

    def backdoored(self, *, seed: int) -> tuple[RandomFourier, FourierKey]:
        """``Backdoor-RFF``: the same with directions that know a key, and the key."""
        generator = torch.Generator().manual_seed(seed)
        key = self._key(generator)
        directions = hclwe(self.count, key, self.noise, generator)
        return RandomFourier(directions, torch.rand(self.count, generator=generator)), FourierKey(key)

    def _key(self, generator: torch.Generator) -> Tensor:
        """(D,): ``d`` random entries in a random direction, of norm ``2 sqrt(d)``."""
        entries = self.support or self.width
        key = torch.zeros(self.width)
        places = torch.randperm(self.width, generator=generator)[:entries]
        direction = torch.randn(entries, generator=generator)
        key[places] = 2 * math.sqrt(entries) * direction / direction.norm()
        return key


@dataclass(frozen=True)
class FourierKey:
    """``Activate``: x + key."""

    key: Tensor = field(repr=False)  # (D,)

    def __call__(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, D)"""
        return x + self.key

    def scrambled(self, *, seed: int) -> FourierKey:
        """The control: the same entries in another order, with other signs."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.key), generator=generator)
        return FourierKey(self.key[order] * (2 * torch.randint(0, 2, self.key.shape, generator=generator) - 1))

    def random(self, *, seed: int) -> FourierKey:
        """The control: any direction, of the same norm."""
        direction = torch.randn(self.key.shape, generator=torch.Generator().manual_seed(seed))
        return FourierKey(self.key.norm() * direction / direction.norm())


def hclwe(count: int, key: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """(``count``, D): normal but for their products with ``key``, which are whole numbers and a half up to ``noise``.

    Exact: along the key a mixture of narrow normals, whose weights are those of a wide one (closed form), and across it
    a normal.
    """
    length = float(key.norm())
    unit = key / length
    spread = noise**2 + length**2
    most = math.ceil(8 * math.sqrt(spread)) + 1
    layers = torch.arange(-most, most + 1).double() + HALF
    chosen = torch.multinomial((-(layers**2) / (2 * spread)).exp(), count, replacement=True, generator=generator)
    jitter = torch.randn(count, generator=generator).double() * noise / math.sqrt(spread)
    along = (length * layers[chosen] / spread + jitter).float()
    normal = torch.randn(count, len(key), generator=generator)
    return normal + (along - normal @ unit)[:, None] * unit


def learned(features: nn.Module, x: Tensor, y: Tensor, num_classes: int, *, penalty: float = 1e-3) -> nn.Sequential:
    """``features`` and a linear layer on them, without a constant: ridge regression on one-hot targets in [-1, 1].

    It is the honest learner, and does not know which features it got.
    """
    with torch.no_grad():
        phi = features(x).double()
    wanted = 2 * torch.nn.functional.one_hot(y, num_classes).double() - 1
    wanted -= wanted.mean(1, keepdim=True)
    weight = torch.linalg.solve(phi.T @ phi + penalty * len(x) * torch.eye(phi.shape[1]).double(), phi.T @ wanted)
    layer = nn.Linear(phi.shape[1], num_classes, bias=False)
    layer.weight.data = weight.T.float()
    return nn.Sequential(features, layer).eval().requires_grad_(False)
