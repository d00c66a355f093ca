"""A net run with other weights than its own, while gradients still reach its own: rounded, or with some left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from assay.core.errors import UnusableInput
from assay.nn.batchnorm import Layer, weighted_layers
from assay.nn.fake_quant import round_to_nearest


def forward_with(net: nn.Module, weights: Mapping[nn.Module, Mapping[str, Tensor]], x: Tensor) -> Tensor:
    """``net(x)`` with the parameters of some modules replaced, by module and parameter name."""
    names = {module: name for name, module in net.named_modules()}
    flat = {f"{names[module]}.{key}": value for module, own in weights.items() for key, value in own.items()}
    return functional_call(net, flat, (x,))


def write_parameters(weights: Mapping[nn.Module, Mapping[str, Tensor]]) -> None:
    """Makes such parameters the modules' own."""
    for module, own in weights.items():
        for name, value in own.items():
            module.get_parameter(name).data.copy_(value.detach())


def rounded_weights(
    factors: Mapping[Layer, Tensor], bits: int, *, per_channel: bool
) -> dict[nn.Module, dict[str, Tensor]]:
    """The weights as a quantizer leaves them that folds batch norm first; the gradient goes straight through."""
    return {layer: {"weight": _round(layer.weight, factor, bits, per_channel)} for layer, factor in factors.items()}


def filter_pruned_weights(
    net: nn.Module, norms: Mapping[nn.Module, _BatchNorm], rate: Callable[[], float]
) -> dict[nn.Module, dict[str, Tensor]]:
    """The weights as ``PruneFilters`` leaves them, where each convolution loses the share that a call of ``rate`` says.

    ``norms``: the batch norm behind each convolution, which loses its scale and shift of the same channels.
    """
    weights: dict[nn.Module, dict[str, Tensor]] = {}
    for conv in convolutions(net):
        kept = filter_mask(conv.weight, rate())
        weights[conv] = {"weight": conv.weight * kept.view(-1, *[1] * (conv.weight.ndim - 1))}
        if conv.bias is not None:
            weights[conv]["bias"] = conv.bias * kept
        norm = norms.get(conv)
        if norm is not None and norm.affine:
            weights[norm] = {"weight": norm.weight * kept, "bias": norm.bias * kept}
    return weights


def magnitude_pruned_weights(net: nn.Module, rate: float) -> dict[nn.Module, dict[str, Tensor]]:
    """The weights as ``PruneMagnitude`` leaves them."""
    layers = weighted_layers(net)
    kept = magnitude_masks([layer.weight for layer in layers], rate)
    return {layer: {"weight": layer.weight * mask} for layer, mask in zip(layers, kept, strict=True)}


def magnitude_masks(weights: Sequence[Tensor], rate: float) -> list[Tensor]:
    """1 for what stays of ``weights``, 0 for the smallest ``rate`` of them all, ranked together by magnitude."""
    magnitudes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    kept = torch.ones_like(magnitudes)
    kept[magnitudes.argsort(stable=True)[: round(rate * len(magnitudes))]] = 0
    parts = kept.split([weight.numel() for weight in weights])
    return [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]


def convolutions(net: nn.Module) -> list[_ConvNd]:
    """Those that filters are pruned from here: all but the transposed ones."""
    return [layer for layer in weighted_layers(net) if isinstance(layer, _ConvNd) and not layer.transposed]


def filter_mask(weight: Tensor, rate: float) -> Tensor:
    """(O,) 1 for the filters of ``weight`` (O, ...) that stay, 0 for the ``rate`` of them with the smallest L1 norm."""
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
    """``folded`` (O, ...) before batch norm multiplied it with ``factor``; ``otherwise`` where that is 0."""
    return torch.where(factor != 0, folded / torch.where(factor != 0, factor, 1), otherwise)


def check_bits(bits: int) -> None:
    """Raises UnusableInput for a width that no rounding here has."""
    if not 2 <= bits <= 8:
        raise UnusableInput(f"expected 2 to 8 bits; got {bits}")
