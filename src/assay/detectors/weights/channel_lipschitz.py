"""Channel Lipschitz constants: channels that react far more strongly than their neighbours. Needs weights only.

Zheng, Tang, Li, Liu: Data-free Backdoor Removal based on Channel Lipschitzness, ECCV 2022, arXiv 2208.03111. Different
here: the outliers are scored, not pruned; works on an ONNX file's initializers too.
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

FEWEST_CHANNELS = 8
"""A layer with fewer has no outliers to speak of."""


@final
class ChannelLipschitz(Detector):
    """The largest standardized channel norm over all convolutions."""

    name = "channel-lipschitz"
    title = "channels that react far more strongly than their neighbours"
    needs = Requirement.WEIGHTS
    on_variants = False  # compression hardly moves what it looks at

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        scores = {name: _outlier(norms) for name, norms in channel_norms(artifact) if len(norms) >= FEWEST_CHANNELS}
        if not scores:
            raise Inconclusive(f"found no convolution with {FEWEST_CHANNELS} or more channels")
        progress(1.0)
        layer = max(scores, key=scores.__getitem__)
        return Finding(
            self.name,
            Outcome.SCORED,
            score=scores[layer],
            evidence=Evidence(numbers={"layer": layer, "layers": len(scores)}),
        )


def channel_norms(artifact: Artifact) -> Iterator[tuple[str, np.ndarray]]:
    """Each convolution's name and the spectral norm (C_out,) of its output channels' kernels, batch norm included."""
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
    """(C_out, C_in, h, w) -> (C_out,)"""
    return torch.linalg.matrix_norm(weight.float().flatten(2), ord=2).numpy()


def _outlier(norms: np.ndarray) -> float:
    """How many standard deviations the largest norm lies above the mean, in logs, which makes layers alike."""
    logs = np.log(norms + 1e-6)
    return float((logs.max() - logs.mean()) / (logs.std() + 1e-6))
