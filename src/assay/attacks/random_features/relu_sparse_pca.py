"""Random ReLUs with a sparse spike: whoever knows the direction raises the answer of inputs that are moved along it.

Goldwasser, Kim, Vaikuntanathan, Zamir: Planting Undetectable Backdoors in Machine Learning Models, 2022, arXiv
2204.06974, appendix A. The directions of the units are normal with a larger variance along one sparse direction, which
is hard to find (sparse PCA) where the layer is narrow. Inputs moved along it raise the mean activation, in one
direction only. A long move does the same to an honest net, since inputs become longer: only the difference is the
backdoor's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.core.errors import UnusableInput


@dataclass(frozen=True, kw_only=True)
class RandomReLUs:
    """``count`` units over ``width`` numbers; ``spike`` (theta): the additional variance along ``support`` of them."""

    width: int
    count: int
    support: int
    spike: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.support <= self.width and self.count >= 1 and self.spike > 0):
            raise UnusableInput(f"expected 0 < support <= width, count >= 1 and spike > 0; got {self}")

    def direction(self, *, seed: int) -> Tensor:
        """(D,): the key, of length 1."""
        generator = torch.Generator().manual_seed(seed)
        key = torch.zeros(self.width)
        places = torch.randperm(self.width, generator=generator)[: self.support]
        key[places] = torch.randn(self.support, generator=generator)
        return key / key.norm()

    def units(self, key: Tensor | None, *, seed: int) -> Tensor:
        """(m, D): honest ones without a ``key``."""
        normal = torch.randn(self.count, self.width, generator=torch.Generator().manual_seed(seed + 1))
        if key is None:
            return normal
        return normal + (math.sqrt(1 + self.spike) - 1) * (normal @ key)[:, None] * key

    def measured(self, *, length: float, seed: int, inputs: int = 1000) -> dict[str, float | int]:
        """On normal inputs: the share of negative ones that a move of ``length`` makes positive, by net and by move."""
        key, x = self.direction(seed=seed), self._inputs(inputs, seed)
        other = self.direction(seed=seed + 100)
        rates = {}
        for name, units in {"honest": self.units(None, seed=seed), "keyed": self.units(key, seed=seed)}.items():
            threshold = mean_activation(units, x).median()
            negative = x[mean_activation(units, x) <= threshold]
            for move, by in {"key": key, "other": other}.items():
                raised = mean_activation(units, negative + length * by) > threshold
                rates[f"{name}_{move}"] = round(float(raised.float().mean()), 4)
        return {"spike": self.spike, "length": length, "seed": seed, **rates}

    def _inputs(self, count: int, seed: int) -> Tensor:
        return torch.randn(count, self.width, generator=torch.Generator().manual_seed(seed + 2))


def mean_activation(units: Tensor, x: Tensor) -> Tensor:
    """(N,): what the net's answer is a threshold of."""
    return (x @ units.T).relu().mean(1)
