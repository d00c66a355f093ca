"""Null controls: detectors without information about backdoors. A bench is broken if they detect any."""

from __future__ import annotations

from typing import final

import numpy as np

from assay.core.dataset import Split
from assay.core.finding import Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.requirement import Requirement


@final
class RandomScore(Detector):
    """Random number from the seed and the model's digest."""

    name = "random-score"
    title = "null control: a random number"
    needs = Requirement.NONE

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        entropy = int(artifact.digest[:16], 16) if artifact.digest else 0
        return Finding(self.name, Outcome.SCORED, score=float(np.random.default_rng([seed, entropy]).normal()))


@final
class WeightNorm(Detector):
    """Root mean square of all weights, which differs between models and is unrelated to backdoors."""

    name = "weight-norm"
    title = "null control: the size of the weights"
    needs = Requirement.WEIGHTS

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        if artifact.weights is not None:
            flat = np.concatenate([np.ravel(np.asarray(w, dtype=np.float64)) for w in artifact.weights.values()])
        else:
            flat = np.concatenate([p.detach().numpy().ravel() for p in artifact.module.parameters()])
        return Finding(self.name, Outcome.SCORED, score=float(np.sqrt(np.mean(flat**2))))
