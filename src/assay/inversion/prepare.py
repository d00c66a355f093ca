"""A net made ready for being searched: frozen, batch norm folded, channels last. Several times faster than it came."""

from __future__ import annotations

import copy
from functools import lru_cache

import torch
from torch import Tensor, fx, nn

from assay.artifact import digest_of_module
from assay.errors import UnusableInput
from assay.models.graph import folded_graph


def prepare(net: nn.Module, example: Tensor) -> nn.Module:
    """A copy of ``net`` for gradients with respect to its input only; ``example`` (2, C, H, W) is for tracing it.

    The last copy is kept: all searches of one variant share it.
    """
    return _prepared(net, digest_of_module(net), tuple(example.shape[1:]))


@lru_cache(maxsize=1)
def _prepared(net: nn.Module, weights: str, shape: tuple[int, ...]) -> nn.Module:
    del weights  # part of the key: a net that was trained on is another net
    frozen = _folded(net, torch.full((2, *shape), 0.5))
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    return frozen.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _folded(net: nn.Module, example: Tensor) -> nn.Module:
    """A copy with batch norm folded; where the net cannot be traced a plain copy, which is right, only slower."""
    if isinstance(net, fx.GraphModule):  # the int8 twin: folded already
        return copy.deepcopy(net)
    try:
        return folded_graph(net, example)
    except UnusableInput:
        return copy.deepcopy(net).eval()
