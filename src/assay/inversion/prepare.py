"""A net made ready for being searched: frozen, batch norm folded, channels last. Several times faster than it came."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import final

import torch
from torch import Tensor, fx, nn

from assay.core.errors import UnusableInput
from assay.core.model import digest_of_module
from assay.graphs.fx import folded_graph
from assay.nn.disagreement import DisagreementModel
from assay.nn.precision import fast_autocast
from assay.nn.unit_margin import UnitMargin

BATCH_PIXELS = 2**16
"""Pictures go through the net in parts of this many pixels: larger ones fall out of the processor's cache."""


def prepare(net: nn.Module, example: Tensor) -> nn.Module:
    """A copy of ``net`` for gradients with respect to its input only; ``example`` (2, C, H, W) is for tracing it.

    The last two copies are kept: all searches of one variant share them.
    """
    if isinstance(net, UnitMargin):
        return UnitMargin(prepare(net.net, example), net.factor)
    if isinstance(net, DisagreementModel):
        return DisagreementModel(prepare(net.full, example), prepare(net.compressed, example))
    return _prepared(net, digest_of_module(net), tuple(example.shape[1:]))


def forward_prepared(net: nn.Module, x: Tensor) -> Tensor:
    """(N, K) float32 logits of a net from ``prepare`` for ``x`` (N, C, H, W), batch by batch."""
    x = x.contiguous(memory_format=torch.channels_last)
    at_once = max(8, BATCH_PIXELS // (x.shape[2] * x.shape[3]))
    with fast_autocast(x.device):
        return torch.cat([net(part) for part in x.split(at_once)]).float()


@lru_cache(maxsize=2)
def _prepared(net: nn.Module, weights: str, shape: tuple[int, ...]) -> nn.Module:
    del weights  # part of the key: a net that was trained on is another net
    frozen = _folded(net, torch.full((2, *shape), 0.5))
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    if isinstance(frozen, KeepMemoryFormat):
        return frozen
    return frozen.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@final
class KeepMemoryFormat(nn.Module):
    """A net that may view its features as it was written to: in the layout that it was written for."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.contiguous())


def _folded(net: nn.Module, example: Tensor) -> nn.Module:
    """A copy with batch norm folded; where the net cannot be traced a plain copy, which is right, only slower."""
    if isinstance(net, fx.GraphModule):  # the int8 twin: folded already
        return copy.deepcopy(net)
    try:
        return folded_graph(net, example)
    except UnusableInput:
        return KeepMemoryFormat(copy.deepcopy(net)).eval()
