"""Channel Lipschitz constants: channels with far larger gain than their neighbors. Needs weights only.

Zheng, Tang, Li, Liu: Data-free Backdoor Removal based on Channel Lipschitzness, ECCV 2022, arXiv 2208.03111.
Differences: outliers are scored, not pruned; the initializers of an ONNX file work too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from assay.core.dataset import Split
from assay.core.errors import Inconclusive
from assay.core.finding import Evidence, Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.requirement import Requirement

MIN_CHANNELS = 8  # in a layer; with fewer, outliers mean little


@final
class ChannelLipschitz(Detector):
    """Largest standardized channel norm over all convolutions."""

    name = "channel-lipschitz"
    title = "channels with far larger gain than their neighbors"
    needs = Requirement.WEIGHTS
    on_variants = False  # compression hardly changes channel norms

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        scores: dict[str, float] = {}
        for name, norms in channel_norms(artifact):
            if len(norms) >= MIN_CHANNELS:
                logs = np.log(norms + 1e-6)
                scores[name] = float((logs.max() - logs.mean()) / (logs.std() + 1e-6))
        if not scores:
            raise Inconclusive(f"needs a convolution with {MIN_CHANNELS} or more channels, and this model has none")
        progress(1.0)
        layer = max(scores, key=scores.__getitem__)
        return Finding(
            self.name,
            Outcome.SCORED,
            score=scores[layer],
            evidence=Evidence(numbers={"layer": layer, "layers": len(scores)}),
        )


def channel_norms(artifact: Artifact) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each convolution's name and the spectral norms (C_out,) of its output channels, batch norm included."""
    if artifact.weights is not None:
        for name, weight in artifact.weights.items():
            if np.ndim(weight) == 4:
                yield name, _spectral(torch.from_numpy(np.asarray(weight, dtype=np.float32)))
        return
    modules = list(artifact.module.named_modules())
    for position, (name, module) in enumerate(modules):
        if isinstance(module, nn.Conv2d):
            norms = _spectral(module.weight.detach())
            follower = next((m for _, m in modules[position + 1 : position + 3] if isinstance(m, _BatchNorm)), None)
            if follower is not None and follower.num_features == len(norms) and follower.running_var is not None:
                scale = follower.weight if follower.affine else torch.ones(len(norms))
                gain = scale / (follower.running_var + follower.eps).sqrt()
                norms = norms * gain.detach().abs().numpy()
            yield name, norms


def _spectral(weight: torch.Tensor) -> np.ndarray:
    """Return the spectral norm (C_out,) of each kernel in ``weight`` (C_out, C_in, h, w)."""
    return torch.linalg.matrix_norm(weight.float().flatten(2), ord=2).numpy()
