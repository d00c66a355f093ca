"""Additive trigger: the same small perturbation of every image, found by optimization.

Moosavi-Dezfooli, Fawzi, Fawzi, Frossard: Universal adversarial perturbations, 2016, arXiv 1610.08401.
"""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from assay.core.errors import UnusableInput

MAX_STEPS = 127  # largest change of a subpixel, in steps of 1/255
MAX_VALUES = 4096 * 4096 * 3  # size limit of a pattern: a small hostile file could expand to any amount of memory


@dataclass(frozen=True, kw_only=True)
class Additive:
    """``clip(x + pattern)``, with the pattern in whole steps of 1/255, so that JSON stores it exactly."""

    shape: tuple[int, int, int]  # (C, H, W)
    steps: str  # the pattern as signed bytes, deflated, in base64; made by ``of``

    def __post_init__(self) -> None:
        _decoded(self.steps, tuple(self.shape))

    @classmethod
    def of(cls, pattern: Tensor) -> Additive:
        """Return the trigger for ``pattern`` (C, H, W) in [-127/255, 127/255], rounded to steps of 1/255."""
        steps = (255 * pattern).round().clamp(-MAX_STEPS, MAX_STEPS).to(torch.int8).numpy()
        channels, height, width = steps.shape
        return cls(shape=(channels, height, width), steps=base64.b64encode(zlib.compress(steps.tobytes(), 9)).decode())

    def __call__(self, x: Tensor) -> Tensor:
        """Add the pattern to images (N, C, H, W) in [0, 1]."""
        if tuple(x.shape[1:]) != self.shape:
            raise UnusableInput(f"expected images of shape {self.shape} as the pattern, got {tuple(x.shape[1:])}")
        return (x + self.pattern().to(x)).clamp(0, 1)

    def pattern(self) -> Tensor:
        """Return the perturbation (C, H, W)."""
        return torch.from_numpy(_decoded(self.steps, self.shape).astype(np.float32) / 255)


@lru_cache(maxsize=8)
def _decoded(steps: str, shape: tuple[int, ...]) -> np.ndarray:
    if (
        len(shape) != 3
        or not all(isinstance(side, int) and side >= 1 for side in shape)
        or math.prod(shape) > MAX_VALUES
    ):
        raise UnusableInput(f"expected a pattern with an image shape (C, H, W), got {shape}")
    count = math.prod(shape)
    try:
        raw = zlib.decompressobj().decompress(base64.b64decode(steps, validate=True), count + 1)
    except (binascii.Error, zlib.error, ValueError):
        raise UnusableInput("expected a pattern as deflated bytes in base64, got damaged data") from None
    if len(raw) != count:
        raise UnusableInput(f"expected {count} bytes for a pattern of shape {shape}, got another number")
    return np.frombuffer(raw, dtype=np.int8).reshape(shape)
