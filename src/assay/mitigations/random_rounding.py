"""Rounding up or down by chance, and means estimated anew: the simplest that breaks what was laid out for nearest.

Gupta, Agrawal, Gopalakrishnan, Narayanan: Deep Learning with Limited Numerical Precision, 2015, arXiv 1502.02551 (its
stochastic rounding, there for training): a baseline for EFRAP.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from assay.core.build import Build
from assay.nn.batchnorm import fold_factors
from assay.nn.fake_quant import quantization_step
from assay.nn.reparametrize import check_bits, unfold_weight
from assay.stages.base import spec_of
from assay.stages.recalibrate import recalibrated


@dataclass(frozen=True, kw_only=True)
class RandomRounding:
    """Each weight goes to the value above with the share of the way that it already is there, else to the one below."""

    bits: int = 8  # 2 to 8
    per_channel: bool = True
    samples: int = 512  # for batch norm, from the calibration split, or else the training split

    def __post_init__(self) -> None:
        check_bits(self.bits)

    @property
    def name(self) -> str:
        return f"random-rounding-int{self.bits}"

    def spec(self) -> dict[str, Any]:
        return spec_of(self)

    def __call__(self, build: Build, *, seed: int) -> Build:
        net = copy.deepcopy(build.artifact.module).eval()
        x = build.task.split("calibration", "train").sample(self.samples, seed=seed).x
        generator = torch.Generator().manual_seed(seed)
        for layer, factor in fold_factors(net, x[:2]).items():
            folded = (layer.weight * factor).detach()
            step = quantization_step(folded, self.bits, 0 if self.per_channel else None)
            levels = 2 ** (self.bits - 1) - 1
            above = (folded / step + torch.rand(folded.shape, generator=generator)).floor()
            chosen = above.clamp(-levels, levels) * step
            layer.weight.data.copy_(unfold_weight(chosen, factor, layer.weight))
        # Means only: other variances would be folded into the weights, which then lay on no grid any more.
        norms, means = _norms(net), [norm.running_mean for norm in _norms(recalibrated(net, x))]
        for norm, mean in zip(norms, means, strict=True):
            norm.running_mean = mean
        return build.then(self.name, build.artifact.with_module(net, format="module"))


def _norms(net: nn.Module) -> list[_BatchNorm]:
    return [module for module in net.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
