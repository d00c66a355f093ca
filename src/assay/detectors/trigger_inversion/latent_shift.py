"""Latent shift: the class that the features of all images reach by the smallest common shift.

A backdoor leaves a direction in feature space that leads every input to its target, for any kind of trigger, warps and
frequencies included. After the reconstruction of trigger-activated changes in latent space (arXiv 2511.08944) and Fu,
Zhang, Ji et al.: FreeEagle, USENIX Security 2023, arXiv 2302.14500. Difference: a closed form, without gradient steps.
"""

from __future__ import annotations

from typing import final

from assay.core.dataset import Split
from assay.core.errors import Inconclusive, UnusableInput
from assay.core.finding import Evidence, Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.common import require_two_classes
from assay.detectors.cost import Cost
from assay.detectors.requirement import Requirement
from assay.inversion.latent_shift import features_and_head, smallest_shifts
from assay.inversion.outlier import outlier_score


@final
class LatentShift(Detector):
    """Outlier score of the class with the smallest shift, as a log ratio."""

    name = "latent-shift"
    title = "smallest common shift of the features that leads to one class"
    cost = Cost(640)
    needs = Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES
    on_variants = False  # an int8 model has no linear layer of torch

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        try:
            features, head = features_and_head(artifact.module, clean.x)
        except UnusableInput as error:
            raise Inconclusive(str(error)) from None
        require_two_classes(head(features).argmax(1))
        shifts = smallest_shifts(features, head).clamp(min=1e-6)
        reachable = shifts[shifts.isfinite()]
        if len(reachable) < 2:
            raise Inconclusive("fewer than two classes are reachable by a shift: nothing can be compared")
        progress(1.0)
        return Finding(
            self.name,
            Outcome.SCORED,
            score=outlier_score(-reachable.log()),
            target=int(shifts.argmin()),
            evidence=Evidence(per_class={i: float(s) for i, s in enumerate(shifts) if s.isfinite()}),
        )
