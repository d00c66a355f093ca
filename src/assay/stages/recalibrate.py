"""Batch-norm statistics estimated anew after the weights in front of them have changed."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def recalibrated(net: nn.Module, clean: Tensor, *, batch_size: int = 128) -> nn.Module:
    """A copy of ``net`` in eval mode with batch norm's running statistics over ``clean`` (N, C, H, W) in [0, 1].

    The average over batches is cumulative, all with equal weight; no other weight changes, and dropout stays off.
    Without batch norm the copy equals ``net``.
    """
    net = copy.deepcopy(net).eval()
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's sign for a cumulative average
        norm.train()
    with torch.no_grad():
        for batch in _batches(clean, batch_size):
            net(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    return net


def _batches(clean: Tensor, size: int) -> list[Tensor]:
    """A last picture that would be alone, of which batch norm knows no spread, goes with those before it."""
    batches = list(clean.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
