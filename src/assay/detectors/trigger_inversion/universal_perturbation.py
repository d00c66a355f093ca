"""Universal perturbations: the class with a much weaker additive pattern than the other classes.

Xu, Ersoy, Picek: Universal Soldier: Using Universal Adversarial Perturbations for Detecting Backdoor Attacks, 2023,
arXiv 2302.00747. Difference: one search with a penalty on the size of the pattern, in place of DeepFool followed by an
optimization.
"""

from __future__ import annotations

from typing import final

from assay.detectors.cost import Cost
from assay.detectors.trigger_inversion.common import ClassSearch
from assay.inversion.class_search import SearchBudget
from assay.inversion.families import AdditiveFamily


@final
class UniversalPerturbation(ClassSearch):
    """Smallest additive perturbation for each class."""

    name = "universal-perturbation"
    title = "weakest pattern, added to every image, that leads to one class"
    cost = Cost(8_200)
    required_for_clean = True
    family = AdditiveFamily()
    search_budget = SearchBudget(screening_steps=12, refined=4, steps=32)
