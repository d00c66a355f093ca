"""BadNets: a patch on some training images.

Gu, Dolan-Gavitt, Garg: BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain, 2017,
arXiv 1708.06733. Here size, place and color of the patch are free, and so is the goal: all-to-one, all-to-all or
source-specific.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from assay.attacks.poisoning.base import DataPoisoning
from assay.triggers import Patch


@dataclass(frozen=True, kw_only=True)
class BadNets(DataPoisoning):
    """All-to-one by default; ``target=None``: all-to-all; ``sources``: source-specific."""

    name: ClassVar[str] = "badnets"
    patch: Patch = Patch()  # noqa: RUF009 (frozen)

    def trigger(self) -> Patch:
        return self.patch
