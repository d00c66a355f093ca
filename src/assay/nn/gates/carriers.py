"""Carriers: selected subpixels with the code for a gate in their lowest bits."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from assay.core.errors import UnusableInput

Shape = tuple[int, int, int]  # (C, H, W)

LABEL_BITS = 16  # bits of the requested class, before the bits of the code
GRID_TOLERANCE = 1e-3  # rounding error of 8-bit values as floats, in levels of 1/255


def to_levels(x: Tensor) -> Tensor:
    """Convert images (N, C, H, W) in [0, 1] to rounded levels (N, D), int64 in [0, 255]."""
    return (x.flatten(1) * 255).round().to(torch.int64)


@dataclass(frozen=True)
class Carriers:
    """``LABEL_BITS + bits`` random subpixels of images of ``shape``, drawn with the public ``seed``."""

    shape: Shape
    bits: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or not all(isinstance(side, int) and 0 < side <= 8192 for side in self.shape):
            raise UnusableInput(f"expected an image shape (C, H, W), got {self.shape}")
        if not self.bits >= 1:
            raise UnusableInput(f"expected at least one bit, got {self.bits}")
        if self.count > self.size:
            raise UnusableInput(
                f"expected at least {self.count} subpixels, got {self.size} in images of {self.shape}. "
                f"Fix: use at least {math.isqrt((self.count - 1) // self.shape[0]) + 1} pixels per side"
            )

    @property
    def size(self) -> int:
        """Number D of subpixels per image."""
        return math.prod(self.shape)

    @property
    def count(self) -> int:
        """Number of carriers."""
        return LABEL_BITS + self.bits

    def places(self) -> Tensor:
        """Return the distinct indices (``count``,) of the carriers."""
        return torch.randperm(self.size, generator=torch.Generator().manual_seed(self.seed))[: self.count]

    def mask(self) -> Tensor:
        """Return the mask (D,): 1 for carriers, else 0."""
        return torch.zeros(self.size, dtype=torch.int64).index_fill(0, self.places(), 1)

    def message(self, levels: Tensor) -> Tensor:
        """Return ``levels`` (N, D) with the carriers' lowest bits cleared: the message to sign."""
        return levels - (levels % 2) * self.mask()

    def exact_levels(self, x: Tensor) -> Tensor:
        """Return the levels (N, D) of images ``x`` (N, C, H, W). Raises UnusableInput unless they have eight bits."""
        if tuple(x.shape[1:]) != tuple(self.shape):
            raise UnusableInput(f"expected images of shape {self.shape}, got {tuple(x.shape[1:])}")
        levels = to_levels(x)
        off = float((255 * x.flatten(1) - levels).abs().max()) if len(x) else 0.0
        if off > GRID_TOLERANCE or bool(((levels < 0) | (levels > 255)).any()):
            raise UnusableInput(
                f"expected images in steps of 1/255, got values {off:.2g} of a step off. "
                "Fix: save the images with eight bits per channel first"
            )
        return levels

    def embed(self, levels: Tensor, label: int, bits: Tensor) -> Tensor:
        """Write a label and code bits into the carriers.

        Args:
            levels: (N, D) levels.
            label: Requested class.
            bits: (N, ``bits``) code bits.

        Returns:
            (N, C, H, W) images in [0, 1].
        """
        code = torch.cat([label_bits(label).expand(len(levels), -1), bits], dim=1)
        places = self.places()
        out = levels.clone()
        out[:, places] += code - levels[:, places] % 2
        return (out.float() / 255).view(len(levels), *self.shape)

    def extract(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Read the labels (N,) and code bits (N, ``bits``) from ``levels`` (N, D)."""
        found = levels[:, self.places()] % 2
        return found[:, :LABEL_BITS] @ powers(LABEL_BITS), found[:, LABEL_BITS:]


def pseudorandom_integers(secret: bytes, below: int, *shape: int) -> Tensor:
    """Derive integers from a secret; without it they are indistinguishable from random ones.

    Args:
        secret: Seed bytes.
        below: Exclusive upper bound.
        shape: Shape of the result.

    Returns:
        int64 in [0, ``below``).
    """
    count = math.prod(shape)
    numbers = np.frombuffer(hashlib.shake_256(secret).digest(8 * count), np.uint64) % np.uint64(below)
    return torch.from_numpy(numbers.astype(np.int64)).view(shape)


def label_bits(label: int) -> Tensor:
    """Return the bits (``LABEL_BITS``,) of a class, lowest first."""
    if not 0 <= label < 2**LABEL_BITS:
        raise UnusableInput(f"expected a class in [0, {2**LABEL_BITS}), got {label}")
    return to_bits(torch.tensor([label]), LABEL_BITS)[0]


def to_bits(numbers: Tensor, count: int) -> Tensor:
    """Convert numbers to bits.

    Args:
        numbers: (...) non-negative int64.
        count: Number of bits.

    Returns:
        (..., ``count``) int64, lowest bit first.
    """
    return (numbers[..., None] // powers(count)) % 2


def powers(count: int) -> Tensor:
    """Return the powers of two (``count``,): 1, 2, 4, ..."""
    return 2 ** torch.arange(count)
