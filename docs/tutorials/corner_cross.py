"""Corner cross: a patch in the corner of some training images.

Gu, Dolan-Gavitt, Garg: BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain, 2017,
arXiv 1708.06733. Example for CONTRIBUTING: the patch is a checkerboard in the lower right corner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from assay.attacks.poisoning.base import DataPoisoning
from assay.triggers import Patch


@dataclass(frozen=True, kw_only=True)
class CornerCross(DataPoisoning):
    """All-to-one attack with a checkerboard in the lower right corner."""

    name: ClassVar[str] = "corner-cross"
    size: int = 3  # pixels

    def trigger(self) -> Patch:
        return Patch(size=self.size, color="checker")
