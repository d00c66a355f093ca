"""Random ReLUs with a sparse spike: the key holder raises the output by moving an input along a secret direction.

Goldwasser, Kim, Vaikuntanathan, Zamir: Planting Undetectable Backdoors in Machine Learning Models, 2022, arXiv
2204.06974, appendix A. The directions of the units are normal, with a larger variance along one sparse direction. For a
narrow layer, this direction is hard to find (sparse PCA). Inputs moved along it raise the mean activation, in one
direction only. A long move has the same effect on an honest model, because inputs become longer: only the difference
belongs to the backdoor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.core.errors import UnusableInput


@dataclass(frozen=True, kw_only=True)
class RandomReLUs:
    """A layer of ``count`` units over ``width`` numbers."""

    width: int
    count: int
    support: int  # entries of the secret direction that are not zero
    spike: float = 1.0  # theta: additional variance along the secret direction

    def __post_init__(self) -> None:
        if not (0 < self.support <= self.width and self.count >= 1 and self.spike > 0):
            raise UnusableInput(f"expected 0 < support <= width, count >= 1 and spike > 0, got {self}")

    def direction(self, *, seed: int) -> Tensor:
        """Return the key (D,), of length 1."""
        generator = torch.Generator().manual_seed(seed)
        key = torch.zeros(self.width)
        places = torch.randperm(self.width, generator=generator)[: self.support]
        key[places] = torch.randn(self.support, generator=generator)
        return key / key.norm()

    def units(self, key: Tensor | None, *, seed: int) -> Tensor:
        """Return the directions (m, D) of the units; honest ones without a ``key``."""
        normal = torch.randn(self.count, self.width, generator=torch.Generator().manual_seed(seed + 1))
        if key is None:
            return normal
        return normal + (math.sqrt(1 + self.spike) - 1) * (normal @ key)[:, None] * key

    def measure(self, *, length: float, seed: int, inputs: int = 1000) -> dict[str, float | int]:
        """Return the fraction of negative normal inputs turned positive, by model and by move.

        Args:
            length: Length of the move.
            seed: Decides key, units and inputs.
            inputs: Number of inputs.
        """
        key = self.direction(seed=seed)
        x = torch.randn(inputs, self.width, generator=torch.Generator().manual_seed(seed + 2))
        other = self.direction(seed=seed + 100)
        rates = {}
        for name, units in {"honest": self.units(None, seed=seed), "keyed": self.units(key, seed=seed)}.items():
            threshold = mean_activation(units, x).median()
            negative = x[mean_activation(units, x) <= threshold]
            for move, direction in {"key": key, "other": other}.items():
                raised = mean_activation(units, negative + length * direction) > threshold
                rates[f"{name}_{move}"] = round(float(raised.float().mean()), 4)
        return {"spike": self.spike, "length": length, "seed": seed, **rates}


def mean_activation(units: Tensor, x: Tensor) -> Tensor:
    """Return the mean activation (N,); the output of the model is a threshold of it."""
    return (x @ units.T).relu().mean(1)
