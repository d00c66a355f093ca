"""An additive pattern: the same small change of every picture, found by optimization.

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

MAX_STEPS = 127
"""Of 1/255, that a pattern may add or take away in a pixel."""

MAX_VALUES = 4096 * 4096 * 3
"""Numbers that a pattern may have; a file of a few bytes could ask for any amount of memory."""


@dataclass(frozen=True, kw_only=True)
class Additive:
    """``clip(x + pattern)``, the pattern in whole steps of 1/255, so that it survives JSON as it is.

    ``steps``: its values (C, H, W) as signed bytes, deflated, in base64. Made by ``of``.
    """

    shape: tuple[int, int, int]
    steps: str

    def __post_init__(self) -> None:
        _decoded(self.steps, tuple(self.shape))

    @classmethod
    def of(cls, pattern: Tensor) -> Additive:
        """The trigger that adds ``pattern`` (C, H, W), in [-127/255, 127/255], rounded to steps of 1/255."""
        steps = (255 * pattern).round().clamp(-MAX_STEPS, MAX_STEPS).to(torch.int8).numpy()
        channels, height, width = steps.shape
        return cls(shape=(channels, height, width), steps=base64.b64encode(zlib.compress(steps.tobytes(), 9)).decode())

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> the same with the pattern on it."""
        if tuple(x.shape[1:]) != self.shape:
            raise UnusableInput(f"a pattern of {self.shape} does not fit pictures of {tuple(x.shape[1:])}")
        return (x + self.pattern().to(x)).clamp(0, 1)

    def pattern(self) -> Tensor:
        """(C, H, W): what is added."""
        return torch.from_numpy(_decoded(self.steps, self.shape).astype(np.float32) / 255)


@lru_cache(maxsize=8)
def _decoded(steps: str, shape: tuple[int, ...]) -> np.ndarray:
    if (
        len(shape) != 3
        or not all(isinstance(side, int) and side >= 1 for side in shape)
        or math.prod(shape) > MAX_VALUES
    ):
        raise UnusableInput(f"expected a pattern of a picture's shape (C, H, W); got {shape}")
    count = math.prod(shape)
    try:
        raw = zlib.decompressobj().decompress(base64.b64decode(steps, validate=True), count + 1)
    except (binascii.Error, zlib.error, ValueError):
        raise UnusableInput("expected a pattern as deflated bytes in base64; this one is damaged") from None
    if len(raw) != count:
        raise UnusableInput(f"expected a pattern of {count} bytes, as its shape {shape} says; got another number")
    return np.frombuffer(raw, dtype=np.int8).reshape(shape)
