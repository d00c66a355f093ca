"""Latent shift: the class that the features of all pictures reach by the smallest common shift.

A backdoor leaves a direction in feature space that leads everything to its target, whatever the trigger looks like:
warps and frequencies too. After the reconstruction of trigger-activated changes in latent space (arXiv 2511.08944) and
Fu, Zhang, Ji et al.: FreeEagle, USENIX Security 2023, arXiv 2302.14500; here in closed form, without steps.
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
from assay.detectors.requirement import Requirement
from assay.detectors.trigger_inversion.common import told_apart
from assay.inversion.latent_shift import features_and_head, smallest_shifts
from assay.inversion.outlier import outlier_score


@final
class LatentShift(Detector):
    """How far the class with the smallest shift stands out, as a log ratio."""

    name = "latent-shift"
    title = "smallest common shift of the features that leads to one class"
    needs = Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES
    on_variants = False  # an int8 net shows no linear layer

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        try:
            features, head = features_and_head(artifact.module, clean.x)
        except UnusableInput as why:
            raise Inconclusive(str(why)) from None
        told_apart(head(features).argmax(1))
        shifts = smallest_shifts(features, head).clamp(min=1e-6)
        reached = shifts[shifts.isfinite()]
        if len(reached) < 2:
            raise Inconclusive("fewer than two classes can be reached by any shift: nothing can be compared")
        target = int(shifts.argmin())
        progress(1.0)
        return Finding(
            self.name,
            Outcome.SCORED,
            score=outlier_score(-reached.log()),
            target=target,
            evidence=Evidence(per_class={i: float(s) for i, s in enumerate(shifts) if s.isfinite()}),
        )
