"""Few frequencies: the class to which a weak perturbation of few frequencies sends most images.

The search detects sinusoids (Barni, Kallas, Tondi, 2019, arXiv 1902.11237) and frequency triggers (Wang et al., 2021,
arXiv 2111.10991), which are neither a small patch nor a small perturbation. The search is that of Neural Cleanse over
coefficients of the discrete cosine transform, within a limit in place of a penalty.
"""

from __future__ import annotations

from typing import final

from assay.detectors.cost import Cost
from assay.detectors.trigger_inversion.common import ClassSearch
from assay.inversion.class_search import SearchBudget
from assay.inversion.families import FrequencyFamily


@final
class SparseFrequency(ClassSearch):
    """Fraction of images moved to each class by a limited sum of cosine coefficients."""

    name = "sparse-frequency"
    title = "how many images a few weak frequencies send to one class"
    cost = Cost(8_000)
    family = FrequencyFamily()
    search_budget = SearchBudget(screening_steps=12, steps=30)
