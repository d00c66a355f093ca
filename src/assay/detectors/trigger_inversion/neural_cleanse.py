"""Neural Cleanse: the class with a much smaller trigger patch than the other classes.

Wang, Yao, Shan, Li, Viswanath, Zheng, Zhao: Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural
Networks, IEEE S&P 2019. Differences: all classes in one batch, 40 steps in place of 1,000, and a log ratio against
clean reference models in place of an anomaly index above 2.
"""

from __future__ import annotations

from typing import final

from assay.detectors.cost import Cost
from assay.detectors.trigger_inversion.common import ClassSearch
from assay.inversion.class_search import SearchBudget
from assay.inversion.families import MaskFamily


@final
class NeuralCleanse(ClassSearch):
    """Smallest mask and pattern for each class."""

    name = "neural-cleanse"
    title = "smallest patch that leads to one class"
    cost = Cost(9_200)
    required_for_clean = True
    family = MaskFamily()
    search_budget = SearchBudget(screening_steps=12, refined=4, steps=40)
