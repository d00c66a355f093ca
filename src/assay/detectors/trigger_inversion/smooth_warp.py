"""Smooth warps: the class to which a slight, smooth displacement of the pixels sends most images.

The search detects the trigger of Nguyen, Tran: WaNet - Imperceptible Warping-based Backdoor Attack, ICLR 2021, arXiv
2102.10369, which changes every pixel and adds nothing. The search is that of Neural Cleanse over a coarse grid of
bounded displacements.
"""

from __future__ import annotations

from typing import final

from assay.detectors.cost import Cost
from assay.detectors.trigger_inversion.common import ClassSearch
from assay.inversion.class_search import SearchBudget
from assay.inversion.families import WarpFamily


@final
class SmoothWarp(ClassSearch):
    """Fraction of images moved to each class by a bounded displacement."""

    name = "smooth-warp"
    title = "how many images a slight, smooth warp sends to one class"
    cost = Cost(8_000)
    family = WarpFamily()
    search_budget = SearchBudget(screening_steps=12, steps=30)
