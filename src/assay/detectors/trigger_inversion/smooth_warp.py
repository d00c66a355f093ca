"""Smooth warps: the class that a slight, smooth displacement of the pixels sends most pictures to.

Sees the trigger of Nguyen, Tran: WaNet - Imperceptible Warping-based Backdoor Attack, ICLR 2021, arXiv 2102.10369,
which changes every pixel and adds nothing. Neural Cleanse's search, over a coarse grid of displacements, each bounded.
"""

from __future__ import annotations

from typing import final

from assay.core.dataset import Split
from assay.core.finding import Finding
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.requirement import Requirement
from assay.detectors.trigger_inversion.common import Inversion
from assay.inversion.class_search import SearchBudget
from assay.inversion.families import WarpFamily


@final
class SmoothWarp(Detector):
    """Share of pictures moved per class, within a largest displacement."""

    name = "smooth-warp"
    title = "how many pictures a slight, smooth warp sends to one class"
    needs = Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES
    on_variants = False

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        search = Inversion(self.name, WarpFamily(), SearchBudget(screening_steps=12, steps=30))
        return search(artifact, clean, seed=seed, budget=budget, progress=progress)
