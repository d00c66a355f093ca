"""Spectral norm: the largest singular value of the last weight matrix, relative to its median singular value.

Example for the tutorial. It follows no paper.
"""

from __future__ import annotations

from typing import final

import numpy as np

from assay.core.dataset import Split
from assay.core.errors import Inconclusive
from assay.core.finding import Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.requirement import Requirement


@final
class SpectralNorm(Detector):
    """Score the last weight matrix by its largest singular value."""

    name = "spectral-norm"
    title = "largest singular value of the last layer"
    needs = Requirement.WEIGHTS
    modality = None  # it puts no trigger on an input

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        """Return the largest singular value over the median one, and the class with the largest row norm."""
        weights = artifact.weights  # of an ONNX file; None for torch parameters
        arrays = weights.values() if weights else [p.detach().numpy() for p in artifact.module.parameters()]
        matrices = [np.asarray(array, dtype=np.float64) for array in arrays if np.ndim(array) == 2]
        if not matrices:
            raise Inconclusive("the model has no weight matrix")
        values = np.linalg.svd(matrices[-1], compute_uv=False)
        target = int(np.linalg.norm(matrices[-1], axis=1).argmax())
        return Finding(self.name, Outcome.SCORED, score=float(values[0] / np.median(values)), target=target)
