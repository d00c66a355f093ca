"""Random rounding: round weights up or down at random, and recalibrate the batch-norm means.

Gupta, Agrawal, Gopalakrishnan, Narayanan: Deep Learning with Limited Numerical Precision, 2015, arXiv 1502.02551 (its
stochastic rounding, there for training). Here a baseline for EFRAP, against attacks that rely on nearest rounding.
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
from assay.nn.batchnorm import BatchNorm, batch_norms, fold_factors
from assay.nn.fake_quant import quantization_step
from assay.nn.reparametrize import check_bits, unfold_weight
from assay.stages.recalibrate import recalibrate_batchnorm


@dataclass(frozen=True, kw_only=True)
class RandomRounding(Mitigation):
    """Quantize the weights; the probability of rounding up is the position between the two neighboring levels."""

    method: ClassVar[str] = "random-rounding"
    classifiers_only: ClassVar[bool] = False
    compresses: ClassVar[bool] = True
    bits: int = 8  # 2 to 8
    per_channel: bool = True
    samples: int = 512  # for batch norm

    def __post_init__(self) -> None:
        check_bits(self.bits)

    @property
    def name(self) -> str:
        return f"{self.method}-int{self.bits}"

    def mitigate(self, artifact: Artifact, clean: Split, *, seed: int, progress: Progress) -> nn.Module:
        model = artifact.module
        x = clean.sample(self.samples, seed=seed).x
        generator = torch.Generator().manual_seed(seed)
        max_level = 2 ** (self.bits - 1) - 1
        for layer, factor in fold_factors(model, x[:2]).items():
            folded = (layer.weight * factor).detach()
            step = quantization_step(folded, self.bits, 0 if self.per_channel else None)
            levels = (folded / step + torch.rand(folded.shape, generator=generator)).floor()
            rounded = levels.clamp(-max_level, max_level) * step
            layer.weight.data.copy_(unfold_weight(rounded, factor, layer.weight))
        # Means only: new variances would be folded into the weights and move them off the grid.
        norms, means = _norms(model), [norm.running_mean for norm in _norms(recalibrate_batchnorm(model, x))]
        for norm, mean in zip(norms, means, strict=True):
            norm.running_mean = mean
        return model


def _norms(model: nn.Module) -> list[BatchNorm]:
    return [norm for norm in batch_norms(model) if norm.track_running_stats]
