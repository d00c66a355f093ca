"""Preparation of a model for searches: frozen, batch norm folded, channels last. Several times faster than before."""

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
from assay.nn.unit_margin import UnitMargin


def prepare(model: nn.Module, example: Tensor) -> nn.Module:
    """Return a copy of ``model`` for gradients with respect to its input only.

    The last two copies are cached, so all searches of one variant share them.

    Args:
        model: Model in eval mode.
        example: (2, C, H, W) images for tracing.

    Returns:
        Model for ``forward_prepared``.
    """
    if isinstance(model, UnitMargin):
        return UnitMargin(prepare(model.net, example), model.factor)
    if isinstance(model, DisagreementModel):
        return DisagreementModel(prepare(model.full, example), prepare(model.compressed, example))
    return _prepared(model, digest_of_module(model), tuple(example.shape[1:]))


@lru_cache(maxsize=2)
def _prepared(model: nn.Module, digest: str, shape: tuple[int, ...]) -> nn.Module:
    del digest  # part of the cache key: training changes a model's weights
    frozen = _folded(model, torch.full((2, *shape), 0.5))
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    if isinstance(frozen, KeepMemoryFormat):
        return frozen
    return frozen.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@final
class KeepMemoryFormat(nn.Module):
    """Run a model in contiguous memory format, for models with ``.view()`` calls."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.contiguous())


def _folded(model: nn.Module, example: Tensor) -> nn.Module:
    """Return a copy with batch norm folded, or a plain (slower) copy if the model cannot be traced."""
    if isinstance(model, fx.GraphModule):  # the int8 surrogate: folded already
        return copy.deepcopy(model)
    try:
        return folded_graph(model, example)
    except UnusableInput:
        return KeepMemoryFormat(copy.deepcopy(model)).eval()
