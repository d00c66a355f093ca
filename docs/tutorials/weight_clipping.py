"""Weight clipping: a bound on the weights of every layer.

Example for CONTRIBUTING. It follows no paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from assay.core.dataset import Split
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.mitigations.base import Mitigation


@dataclass(frozen=True, kw_only=True)
class WeightClipping(Mitigation):
    """Clip each weight tensor to a quantile of its absolute values."""

    method: ClassVar[str] = "weight-clipping"
    needs_data: ClassVar[bool] = False
    quantile: float = 0.99  # of the absolute weights of a tensor

    def mitigate(self, artifact: Artifact, clean: Split, *, seed: int, progress: Progress) -> nn.Module:
        with torch.no_grad():
            for weight in artifact.module.parameters():
                bound = torch.quantile(weight.abs().flatten()[:100_000], self.quantile)
                weight.clamp_(-float(bound), float(bound))
        return artifact.module
