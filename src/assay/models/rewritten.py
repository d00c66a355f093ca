"""A net run with other weights than its own, while gradients still reach its own: rounded, or with some left out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from assay.errors import UnusableInput
from assay.models.folding import Layer
from assay.models.rounding import to_nearest


def run_with(net: nn.Module, weights: Mapping[nn.Module, Mapping[str, Tensor]], x: Tensor) -> Tensor:
    """``net(x)`` with the parameters of some modules replaced, by module and parameter name."""
    names = {module: name for name, module in net.named_modules()}
    flat = {f"{names[module]}.{key}": value for module, own in weights.items() for key, value in own.items()}
    return functional_call(net, flat, (x,))


def rounded(factors: Mapping[Layer, Tensor], bits: int, *, per_channel: bool) -> dict[nn.Module, dict[str, Tensor]]:
    """The weights as a quantizer leaves them that folds batch norm first; the gradient goes straight through."""
    return {layer: {"weight": _round(layer.weight, factor, bits, per_channel)} for layer, factor in factors.items()}


def _round(weight: Tensor, factor: Tensor, bits: int, per_channel: bool) -> Tensor:
    with torch.no_grad():
        folded = weight * factor
        near, _ = to_nearest(folded, bits, 0 if per_channel else None)
        shift = unfolded(near - folded, factor, torch.zeros_like(folded))
    return weight + shift


def unfolded(folded: Tensor, factor: Tensor, otherwise: Tensor) -> Tensor:
    """``folded`` (O, ...) before batch norm multiplied it with ``factor``; ``otherwise`` where that is 0."""
    return torch.where(factor != 0, folded / torch.where(factor != 0, factor, 1), otherwise)


def check_bits(bits: int) -> None:
    """Raises UnusableInput for a width that no rounding here has."""
    if not 2 <= bits <= 8:
        raise UnusableInput(f"expected 2 to 8 bits; got {bits}")
