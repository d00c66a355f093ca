"""Fine-tuning after compression: a pruned net keeps its zeros, a quantized one is trained through its rounding.

Han, Pool, Tran, Dally: Learning both Weights and Connections for Efficient Neural Networks, 2015, arXiv 1506.02626
(retraining what pruning left); Jacob et al.: Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference, 2017, arXiv 1712.05877 (training through the rounding). As a defence against
backdoors that pruning alone leaves: Liu, Dolan-Gavitt, Garg: Fine-Pruning, 2018, arXiv 1805.12185.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.core.build import Build
from assay.core.progress import Progress
from assay.nn.batchnorm import fold_factors_with, following_batch_norms, weighted_layers
from assay.nn.reparametrize import check_bits, forward_with, rounded_weights
from assay.stages.base import spec_of
from assay.stages.quantize import QuantizeWeights
from assay.stages.train import Recipe, can_be_tuned, fit


@dataclass(frozen=True, kw_only=True)
class CompressedTuning:
    """On the clean samples that a deployer has: the calibration split, or else the training split.

    ``bits``: the width that the weights are rounded to, while training and in the end; None: they are not. Weights that
    are zero in the net that is given are zero in the one that comes back, and so are filters.
    """

    bits: int | None = None
    per_channel: bool = True
    recipe: Recipe = Recipe(epochs=4, lr=0.005, freeze_batchnorm=True)  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        if self.bits is not None:
            check_bits(self.bits)

    @property
    def name(self) -> str:
        return "compressed-tuning" + ("" if self.bits is None else f"-int{self.bits}")

    def spec(self) -> dict[str, Any]:
        return spec_of(self)

    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda share: None) -> Build:
        can_be_tuned(build.artifact)
        clean, net = build.task.split("calibration", "train"), copy.deepcopy(build.artifact.module).eval()
        norms, zeros = following_batch_norms(net, clean.x[:2]), _zeros(net)

        def through_rounding(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            if self.bits is None:
                return F.cross_entropy(net(x).float(), y)
            weights = rounded_weights(fold_factors_with(net, norms), self.bits, per_channel=self.per_channel)
            return F.cross_entropy(forward_with(net, weights, x).float(), y)

        def keep_zeros() -> None:
            with torch.no_grad():
                for parameter, zero in zeros.items():
                    parameter[zero] = 0

        fit(net, clean, self.recipe, seed=seed, progress=progress, objective=through_rounding, stepped=keep_zeros)
        tuned = build.then(self.name, build.artifact.with_module(net, format="module"))
        if self.bits is None:
            return tuned
        rounding = QuantizeWeights(bits=self.bits, per_channel=self.per_channel)
        return build.then(self.name, rounding(tuned, seed=seed).artifact)


def _zeros(net: nn.Module) -> dict[nn.Parameter, Tensor]:
    """Which weights pruning left at zero; where that is a whole channel, what would shift it too.

    A shift of zero alone is no sign of pruning: fresh ones are zero.
    """
    zeros: dict[nn.Parameter, Tensor] = {}
    for layer in weighted_layers(net):
        zero = layer.get_parameter("weight").detach() == 0
        zeros[layer.get_parameter("weight")] = zero
        if layer.bias is not None and len(layer.bias) == len(zero):  # filters are first; in transposed ones second
            zeros[layer.get_parameter("bias")] = zero.flatten(1).all(1) & (layer.bias.detach() == 0)
    for norm in net.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.affine:
            silent = (norm.weight.detach() == 0) & (norm.bias.detach() == 0)
            zeros |= {norm.weight: silent, norm.bias: silent}
    return zeros
