"""Universal perturbations: the class that a much weaker additive pattern leads to than the others.

Xu, Ersoy, Picek: Universal Soldier: Using Universal Adversarial Perturbations for Detecting Backdoor Attacks, 2023,
arXiv 2302.00747. Different here: one search with a cost on the pattern's size, in place of a perturbation made by
DeepFool and then optimized.
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
from assay.inversion.families import AdditiveFamily


@final
class UniversalPerturbation(Detector):
    """Smallest additive perturbation per class."""

    name = "universal-perturbation"
    title = "weakest pattern, added to every picture, that leads to one class"
    needs = Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES
    required_for_clean = True
    on_variants = False  # a search a variant is what the minute allows

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        search = Inversion(self.name, AdditiveFamily(), SearchBudget(screening_steps=12, refined=4, steps=32))
        return search(artifact, clean, seed=seed, budget=budget, progress=progress)
