"""What a net says of many pictures, in batches and without gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assay.progress import Progress


def logits(net: nn.Module, x: Tensor, *, batch: int = 128, progress: Progress = lambda share: None) -> Tensor:
    """(N, K) for ``x`` (N, C, H, W) in [0, 1]; the net's mode is the caller's business."""
    parts = x.split(batch)
    found = []
    with torch.no_grad():
        for done, part in enumerate(parts, start=1):
            found.append(net(part))
            progress(done / len(parts))
    return torch.cat(found)


def predict(net: nn.Module, x: Tensor, *, batch: int = 128, progress: Progress = lambda share: None) -> Tensor:
    """(N,) int64: the classes that ``net`` names for ``x`` (N, C, H, W) in [0, 1]."""
    return logits(net, x, batch=batch, progress=progress).argmax(1)
