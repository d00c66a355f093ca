"""Blended injection: one pattern mixed into some training images.

Chen, Liu, Li, Lu, Song: Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning, 2017,
arXiv 1712.05526. Here the pattern is seeded noise, coarse or fine, instead of the paper's cartoon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from assay.attacks.poisoning.base import DataPoisoning
from assay.triggers import Blend


@dataclass(frozen=True, kw_only=True)
class Blended(DataPoisoning):
    """All-to-one by default."""

    name: ClassVar[str] = "blended"
    blend: Blend = Blend()  # noqa: RUF009 (frozen)

    def trigger(self) -> Blend:
        return self.blend
