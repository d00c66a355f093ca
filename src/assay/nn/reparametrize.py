"""Forward passes with quantized or pruned weights, differentiable with respect to the original weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd

from assay.core.errors import UnusableInput
from assay.nn.batchnorm import BatchNorm, Layer, weighted_layers
from assay.nn.fake_quant import round_to_nearest

Parameters = Mapping[nn.Module, Mapping[str, Tensor]]  # replacements by module and parameter name


def forward_with(model: nn.Module, parameters: Parameters, x: Tensor) -> Tensor:
    """Run ``model`` with some of its parameters replaced.

    Args:
        model: Model to run.
        parameters: Replacements for parameters of its submodules.
        x: (N, C, H, W) images.
    """
    names = {module: name for name, module in model.named_modules()}
    flat = {f"{names[module]}.{key}": value for module, own in parameters.items() for key, value in own.items()}
    return functional_call(model, flat, (x,))


def write_parameters(parameters: Parameters) -> None:
    """Copy the replacements into the modules, in place."""
    for module, own in parameters.items():
        for name, value in own.items():
            module.get_parameter(name).data.copy_(value.detach())


def rounded_weights(
    factors: Mapping[Layer, Tensor], bits: int, *, per_channel: bool
) -> dict[nn.Module, dict[str, Tensor]]:
    """Quantize weights after batch norm folding; the gradient is straight-through.

    Args:
        factors: Result of ``fold_factors``.
        bits: Width in bits.
        per_channel: One step per output channel instead of one per layer.

    Returns:
        Replacements for ``forward_with``.
    """
    return {layer: {"weight": _round(layer.weight, factor, bits, per_channel)} for layer, factor in factors.items()}


def filter_pruned_weights(
    model: nn.Module, norms: Mapping[nn.Module, BatchNorm], rate: Callable[[], float]
) -> dict[nn.Module, dict[str, Tensor]]:
    """Prune filters as ``PruneFilters`` does, with a rate per convolution.

    Args:
        model: Model to prune.
        norms: Batch norm after each convolution; loses scale and shift of the pruned channels.
        rate: Called once per convolution; returns the fraction of filters to prune.

    Returns:
        Replacements for ``forward_with``.
    """
    weights: dict[nn.Module, dict[str, Tensor]] = {}
    for conv in convolutions(model):
        kept = filter_mask(conv.weight, rate())
        weights[conv] = {"weight": conv.weight * kept.view(-1, *[1] * (conv.weight.ndim - 1))}
        if conv.bias is not None:
            weights[conv]["bias"] = conv.bias * kept
        norm = norms.get(conv)
        if norm is not None and norm.affine:
            weights[norm] = {"weight": norm.weight * kept, "bias": norm.bias * kept}
    return weights


def magnitude_pruned_weights(model: nn.Module, rate: float) -> dict[nn.Module, dict[str, Tensor]]:
    """Prune weights as ``PruneMagnitude`` does.

    Args:
        model: Model to prune.
        rate: Fraction of weights to prune.

    Returns:
        Replacements for ``forward_with``.
    """
    layers = weighted_layers(model)
    kept = magnitude_masks([layer.weight for layer in layers], rate)
    return {layer: {"weight": layer.weight * mask} for layer, mask in zip(layers, kept, strict=True)}


def magnitude_masks(weights: Sequence[Tensor], rate: float) -> list[Tensor]:
    """Compute pruning masks for the smallest weights, ranked together by magnitude.

    Args:
        weights: Weights of all layers.
        rate: Fraction to prune.

    Returns:
        Masks of the same shapes: 1 to keep, 0 to prune.
    """
    magnitudes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    kept = torch.ones_like(magnitudes)
    kept[magnitudes.argsort(stable=True)[: round(rate * len(magnitudes))]] = 0
    parts = kept.split([weight.numel() for weight in weights])
    return [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]


def convolutions(model: nn.Module) -> list[_ConvNd]:
    """Return the convolutions for filter pruning: all but the transposed ones."""
    return [layer for layer in weighted_layers(model) if isinstance(layer, _ConvNd) and not layer.transposed]


def filter_mask(weight: Tensor, rate: float) -> Tensor:
    """Compute the pruning mask for the filters with the smallest L1 norm.

    Args:
        weight: Filters (O, ...).
        rate: Fraction to prune.

    Returns:
        (O,): 1 to keep, 0 to prune.
    """
    norms = weight.detach().abs().flatten(1).sum(1)
    kept = torch.ones_like(norms)
    kept[norms.argsort(stable=True)[: int(rate * len(norms))]] = 0
    return kept


def _round(weight: Tensor, factor: Tensor, bits: int, per_channel: bool) -> Tensor:
    with torch.no_grad():
        folded = weight * factor
        near, _ = round_to_nearest(folded, bits, 0 if per_channel else None)
        shift = unfold_weight(near - folded, factor, torch.zeros_like(folded))
    return weight + shift


def unfold_weight(folded: Tensor, factor: Tensor, otherwise: Tensor) -> Tensor:
    """Divide folded weights by the batch norm factor.

    Args:
        folded: Folded weights (O, ...).
        factor: Result of ``fold_factors`` for the layer.
        otherwise: Weights for channels with factor 0.
    """
    return torch.where(factor != 0, folded / torch.where(factor != 0, factor, 1), otherwise)


def check_bits(bits: int) -> None:
    """Raise UnusableInput for an unsupported width."""
    if not 2 <= bits <= 8:
        raise UnusableInput(f"expected 2 to 8 bits, got {bits}")
