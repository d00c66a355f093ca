"""Neural Cleanse: the class that a much smaller patch leads to than the other classes is a backdoor's target.

Wang, Yao, Shan, Li, Viswanath, Zheng, Zhao: Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural
Networks, IEEE S&P 2019. Different here: all classes in one batch, 40 steps in place of 1,000, a log ratio against
clean reference models in place of an anomaly index against 2.
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
from assay.inversion.families import MaskFamily


@final
class NeuralCleanse(Detector):
    """Smallest mask and pattern per class."""

    name = "neural-cleanse"
    title = "smallest patch that leads to one class"
    needs = Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES
    required_for_clean = True
    on_variants = False  # the scans look at the other forms: a search a form would take a minute by itself

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        search = Inversion(self.name, MaskFamily(), SearchBudget(screening_steps=12, refined=4, steps=40))
        return search(artifact, clean, seed=seed, budget=budget, progress=progress)
