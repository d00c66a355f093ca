"""Fine-tuning after compression: a pruned model keeps its zeros, a quantized model trains through its rounding.

Han, Pool, Tran, Dally: Learning both Weights and Connections for Efficient Neural Networks, 2015, arXiv 1506.02626
(retraining of the remaining weights); Jacob et al.: Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference, 2017, arXiv 1712.05877 (training through the rounding). As a defence against
backdoors after pruning alone: Liu, Dolan-Gavitt, Garg: Fine-Pruning, 2018, arXiv 1805.12185.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.mitigations.base import Mitigation
from assay.nn.batchnorm import batch_norms, fold_factors_with, following_batch_norms, weighted_layers
from assay.nn.reparametrize import check_bits, forward_with, rounded_weights
from assay.stages.quantize import round_weights_in_place
from assay.stages.train import FitOptions, Recipe, fit


@dataclass(frozen=True, kw_only=True)
class CompressedTuning(Mitigation):
    """Fine-tune a pruned or quantized classifier. Zero weights and zero filters stay zero."""

    method: ClassVar[str] = "compressed-tuning"
    compresses: ClassVar[bool] = True
    bits: int | None = None  # width of the weights during and after training; None: not rounded
    per_channel: bool = True
    recipe: Recipe = Recipe(epochs=4, lr=0.005, freeze_batchnorm=True)  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        if self.bits is not None:
            check_bits(self.bits)

    @property
    def name(self) -> str:
        return self.method + ("" if self.bits is None else f"-int{self.bits}")

    def mitigate(self, artifact: Artifact, clean: Split, *, seed: int, progress: Progress) -> nn.Module:
        model, bits = artifact.module, self.bits
        norms, zeros = following_batch_norms(model, clean.x[:2]), _zero_masks(model)

        def loss_through_rounding(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            if bits is None:
                return F.cross_entropy(model(x).float(), y)
            weights = rounded_weights(fold_factors_with(model, norms), bits, per_channel=self.per_channel)
            return F.cross_entropy(forward_with(model, weights, x).float(), y)

        def keep_zeros() -> None:
            with torch.no_grad():
                for parameter, zero in zeros.items():
                    parameter[zero] = 0

        options = FitOptions(objective=loss_through_rounding, on_step_end=keep_zeros)
        fit(model, clean, self.recipe, seed=seed, progress=progress, options=options)
        if bits is not None:
            round_weights_in_place(model, clean.x[:2], bits, per_channel=self.per_channel)
        return model


def _zero_masks(model: nn.Module) -> dict[nn.Parameter, Tensor]:
    """Return masks of the pruned weights; for a pruned channel also of its bias and batch-norm parameters.

    A bias of zero alone is no sign of pruning: initial biases are zero.
    """
    zeros: dict[nn.Parameter, Tensor] = {}
    for layer in weighted_layers(model):
        zero = layer.get_parameter("weight").detach() == 0
        zeros[layer.get_parameter("weight")] = zero
        if layer.bias is not None and len(layer.bias) == len(zero):  # axis 0 holds the filters; transposed: axis 1
            zeros[layer.get_parameter("bias")] = zero.flatten(1).all(1) & (layer.bias.detach() == 0)
    for norm in batch_norms(model):
        if norm.affine:
            silent = (norm.weight.detach() == 0) & (norm.bias.detach() == 0)
            zeros |= {norm.weight: silent, norm.bias: silent}
    return zeros
