"""What batch norm does to the weights in front of it: the exporters of every deployed form fold it into them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from assay.core.errors import UnusableInput

Layer = _ConvNd | nn.Linear


def weighted_layers(net: nn.Module) -> list[Layer]:
    """Convolutions and linear layers, in order of registration."""
    return [module for module in net.modules() if isinstance(module, _ConvNd | nn.Linear)]


def following_batch_norms(net: nn.Module, example: Tensor) -> dict[nn.Module, _BatchNorm]:
    """For each convolution, the batch norm that takes the very tensor it returned, seen in one forward pass."""
    made: dict[int, tuple[nn.Module, Tensor, int]] = {}  # keeps the tensors alive, so that no id comes twice
    found: dict[nn.Module, _BatchNorm] = {}

    def watch(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, _ConvNd):
            made[id(output)] = (module, output, output._version)
        elif isinstance(module, _BatchNorm) and id(inputs[0]) in made:
            conv, returned, version = made[id(inputs[0])]
            if returned._version == version:  # nothing was added to it, or clipped, in place since
                found[conv] = module

    watched = [module for module in net.modules() if isinstance(module, _ConvNd | _BatchNorm)]
    hooks = [module.register_forward_hook(watch) for module in watched]
    try:
        with torch.no_grad():
            net(example)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def fold_factors(net: nn.Module, example: Tensor) -> dict[Layer, Tensor]:
    """What each layer's weight (O, ...) is multiplied with when the batch norm behind it is folded in: (O, 1, ...).

    Ones where there is none. ``net`` in eval mode; transposed convolutions, whose filters lie otherwise, are left out.
    Raises UnusableInput for a net without such layers.
    """
    return fold_factors_with(net, following_batch_norms(net, example))


def fold_factors_with(net: nn.Module, norms: dict[nn.Module, _BatchNorm]) -> dict[Layer, Tensor]:
    """:func:`fold_factors` where it is known which norm is behind which layer: they move while a net is trained."""
    factors = {}
    for layer in weighted_layers(net):
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
        raise UnusableInput("expected a net with convolutions or linear layers of torch, whose weights are rounded")
    return factors
