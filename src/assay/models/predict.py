"""What a net says of many pictures, in batches and without gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def logits(net: nn.Module, x: Tensor, *, batch: int = 128) -> Tensor:
    """(N, K) for ``x`` (N, C, H, W) in [0, 1]; the net's mode is the caller's business."""
    with torch.no_grad():
        return torch.cat([net(part) for part in x.split(batch)])


def predict(net: nn.Module, x: Tensor, *, batch: int = 128) -> Tensor:
    """(N,) int64: the classes that ``net`` names for ``x`` (N, C, H, W) in [0, 1]."""
    return logits(net, x, batch=batch).argmax(1)
