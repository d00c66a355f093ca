"""Spectral norm: the largest singular value of the last linear layer, relative to its median singular value.

Example for the tutorial. It follows no paper.
"""

from __future__ import annotations

from typing import final

import torch

from assay.core.dataset import Split
from assay.core.finding import Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.requirement import Requirement
from assay.nn.head import last_linear


@final
class SpectralNorm(Detector):
    """Score the last linear layer by its largest singular value."""

    name = "spectral-norm"
    title = "largest singular value of the last layer"
    needs = Requirement.WEIGHTS
    modality = None  # it puts no trigger on an input

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        """Return the largest singular value over the median one, and the class with the largest row norm."""
        _, layer = last_linear(artifact.module)
        weight = layer.weight.detach()
        values = torch.linalg.svdvals(weight)
        target = int(weight.norm(dim=1).argmax())
        return Finding(self.name, Outcome.SCORED, score=float(values[0] / values.median()), target=target)
