"""Null controls: detectors that know nothing. A bench in which they find backdoors is broken."""

from __future__ import annotations

from typing import final

import numpy as np

from assay.core.dataset import Split
from assay.core.finding import Finding
from assay.core.model import Artifact
from assay.detectors.base import Budget, Detector, Progress


@final
class RandomScore(Detector):
    """A number drawn from the seed and the model's digest."""

    name = "random-score"
    title = "null control: a random number"
    needs = frozenset()

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        entropy = int(artifact.digest[:16], 16) if artifact.digest else 0
        return Finding(self.name, "ok", score=float(np.random.default_rng([seed, entropy]).normal()))


@final
class WeightNorm(Detector):
    """The root mean square of all weights: differs between models, and has nothing to do with backdoors."""

    name = "weight-norm"
    title = "null control: the size of the weights"
    needs = frozenset({"weights"})

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        if artifact.weights is not None:
            flat = np.concatenate([np.ravel(np.asarray(w, dtype=np.float64)) for w in artifact.weights.values()])
        else:
            flat = np.concatenate([p.detach().numpy().ravel() for p in artifact.module.parameters()])
        return Finding(self.name, "ok", score=float(np.sqrt(np.mean(flat**2))))
