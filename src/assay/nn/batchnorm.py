"""Batch norm layers of a model, and their scale factors for the preceding weights.

The exporters of all deployed variants fold batch norm into the preceding weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from assay.core.errors import UnusableInput
from assay.nn.hooks import forward_hook

BatchNorm = _BatchNorm  # common base class of torch's batch norm layers
Layer = _ConvNd | nn.Linear


def batch_norms(model: nn.Module) -> list[BatchNorm]:
    """Return the batch norm layers, in order of registration."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def weighted_layers(model: nn.Module) -> list[Layer]:
    """Return the convolutions and linear layers, in order of registration."""
    return [module for module in model.modules() if isinstance(module, _ConvNd | nn.Linear)]


def following_batch_norms(model: nn.Module, example: Tensor) -> dict[nn.Module, BatchNorm]:
    """Find the batch norm directly after each convolution, in one forward pass.

    Args:
        model: Model in eval mode.
        example: (N, C, H, W) images.

    Returns:
        Batch norm by convolution, unless the convolution's output changes before the batch norm.
    """
    outputs: dict[int, tuple[nn.Module, Tensor, int]] = {}  # keeps the tensors alive: prevents the reuse of ids
    found: dict[nn.Module, BatchNorm] = {}

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, _ConvNd):
            outputs[id(output)] = (module, output, output._version)
        elif isinstance(module, _BatchNorm) and id(inputs[0]) in outputs:
            conv, returned, version = outputs[id(inputs[0])]
            if returned._version == version:  # no in-place operator changed it since
                found[conv] = module

    watched = [module for module in model.modules() if isinstance(module, _ConvNd | _BatchNorm)]
    with forward_hook(watched, record), torch.no_grad():
        model(example)
    return found


def fold_factors(model: nn.Module, example: Tensor) -> dict[Layer, Tensor]:
    """Compute the factors of batch norm folding for the weights (O, ...) of each layer.

    Transposed convolutions are left out, because their filters lie along another axis.

    Args:
        model: Model in eval mode.
        example: (N, C, H, W) images for one forward pass.

    Returns:
        Factors (O, 1, ...) by layer; ones for layers without batch norm.

    Raises:
        UnusableInput: The model has no such layer.
    """
    return fold_factors_with(model, following_batch_norms(model, example))


def fold_factors_with(model: nn.Module, norms: Mapping[nn.Module, BatchNorm]) -> dict[Layer, Tensor]:
    """Compute :func:`fold_factors` for known batch norms, without a forward pass; for use during training.

    Args:
        model: Model in eval mode.
        norms: Result of ``following_batch_norms``.
    """
    factors = {}
    for layer in weighted_layers(model):
        if isinstance(layer, _ConvNd) and layer.transposed:
            continue
        norm = norms.get(layer)
        weight = layer.weight
        factor = torch.ones(len(weight), dtype=weight.dtype, device=weight.device)
        if norm is not None and norm.running_var is not None:
            gamma = norm.weight if norm.affine else torch.ones_like(norm.running_var)
            factor = (gamma / (norm.running_var + norm.eps).sqrt()).detach()
        factors[layer] = factor.view(-1, *[1] * (weight.ndim - 1))
    if not factors:
        raise UnusableInput("expected a model with torch convolutions or linear layers to round, got none")
    return factors
