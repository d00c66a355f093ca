"""Bits in the lowest bit of chosen subpixels: where a picture carries what opens a gate."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from assay.core.errors import UnusableInput

Shape = tuple[int, int, int]  # (C, H, W)

LABEL_BITS = 16
"""Of the class that is asked for, in front of the bits that prove the right to ask."""

GRID_TOLERANCE = 1e-3
"""Of a level, 1/255, that float rounding may move a value of eight bits by."""


def to_levels(x: Tensor) -> Tensor:
    """(N, C, H, W) in [0, 1] -> (N, D) int64 in [0, 255], rounded: what a gate reads."""
    return (x.flatten(1) * 255).round().to(torch.int64)


@dataclass(frozen=True)
class Carriers:
    """``LABEL_BITS`` and ``bits`` subpixels of pictures of ``shape``, drawn by ``seed``; their places are no secret."""

    shape: Shape
    bits: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or not all(isinstance(side, int) and 0 < side <= 8192 for side in self.shape):
            raise UnusableInput(f"expected pictures of a shape (C, H, W); got {self.shape}")
        if not self.bits >= 1:
            raise UnusableInput(f"expected at least one bit to carry; got {self.bits}")
        if self.count > self.size:
            raise UnusableInput(
                f"pictures of {self.shape} have {self.size} subpixels, too few to carry {self.count} bits: expected "
                f"at least {math.isqrt((self.count - 1) // self.shape[0]) + 1} pixels a side"
            )

    @property
    def size(self) -> int:
        """D: subpixels of a picture."""
        return math.prod(self.shape)

    @property
    def count(self) -> int:
        """Subpixels that carry a bit."""
        return LABEL_BITS + self.bits

    def places(self) -> Tensor:
        """(``count``,) int64, distinct."""
        return torch.randperm(self.size, generator=torch.Generator().manual_seed(self.seed))[: self.count]

    def mask(self) -> Tensor:
        """(D,) int64: 1 where a subpixel carries."""
        return torch.zeros(self.size, dtype=torch.int64).index_fill(0, self.places(), 1)

    def message(self, levels: Tensor) -> Tensor:
        """``levels`` (N, D) with the carrying bits cleared: all that is signed."""
        return levels - (levels % 2) * self.mask()

    def on_grid(self, x: Tensor) -> Tensor:
        """(N, D) int64 levels of ``x`` (N, C, H, W). Raises UnusableInput for pictures that are not of eight bits."""
        if tuple(x.shape[1:]) != tuple(self.shape):
            raise UnusableInput(f"expected pictures of {self.shape}; came {tuple(x.shape[1:])}")
        levels = to_levels(x)
        off = float((255 * x.flatten(1) - levels).abs().max()) if len(x) else 0.0
        if off > GRID_TOLERANCE or bool(((levels < 0) | (levels > 255)).any()):
            raise UnusableInput(
                f"expected pictures in steps of 1/255, whose lowest bits can carry a signature; these are {off:.2g} of "
                "a step off: save them with eight bits a channel first"
            )
        return levels

    def carrying(self, levels: Tensor, label: int, bits: Tensor) -> Tensor:
        """Pictures (N, C, H, W) of ``levels`` (N, D) with ``label`` and ``bits`` (N, ``bits``) in their lowest bits."""
        asked = torch.cat([label_bits(label).expand(len(levels), -1), bits], dim=1)
        places = self.places()
        out = levels.clone()
        out[:, places] += asked - levels[:, places] % 2
        return (out.float() / 255).view(len(levels), *self.shape)

    def carried(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) labels and (N, ``bits``) bits in ``levels`` (N, D)."""
        found = levels[:, self.places()] % 2
        return found[:, :LABEL_BITS] @ powers(LABEL_BITS), found[:, LABEL_BITS:]


def pseudorandom_integers(secret: bytes, below: int, *shape: int) -> Tensor:
    """(``shape``) int64 in [0, ``below``), as ``secret`` says: nobody without it can tell them from chance."""
    count = math.prod(shape)
    numbers = np.frombuffer(hashlib.shake_256(secret).digest(8 * count), np.uint64) % np.uint64(below)
    return torch.from_numpy(numbers.astype(np.int64)).view(shape)


def label_bits(label: int) -> Tensor:
    """(``LABEL_BITS``,) int64, the lowest first."""
    if not 0 <= label < 2**LABEL_BITS:
        raise UnusableInput(f"expected a class in [0, {2**LABEL_BITS}); got {label}")
    return to_bits(torch.tensor([label]), LABEL_BITS)[0]


def to_bits(numbers: Tensor, count: int) -> Tensor:
    """(..., ``count``) int64 of numbers (...) from 0 on, the lowest first."""
    return (numbers[..., None] // powers(count)) % 2


def powers(count: int) -> Tensor:
    """(``count``,): 1, 2, 4, ..."""
    return 2 ** torch.arange(count)
