"""Few frequencies: the class that a weak perturbation of few frequencies sends most pictures to.

Sees sinusoids (Barni, Kallas, Tondi, 2019, arXiv 1902.11237) and frequency triggers (Wang et al., 2021,
arXiv 2111.10991), which are no small patch and no small perturbation either. The search is Neural Cleanse's, over
coefficients of the discrete cosine transform, within a budget in place of a cost.
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
from assay.inversion.families import FrequencyFamily


@final
class SparseFrequency(Detector):
    """Share of pictures moved per class, within a budget of cosine coefficients."""

    name = "sparse-frequency"
    title = "how many pictures a few weak frequencies send to one class"
    needs = Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES
    on_variants = False

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        search = Inversion(self.name, FrequencyFamily(), SearchBudget(screening_steps=12, steps=30))
        return search(artifact, clean, seed=seed, budget=budget, progress=progress)
