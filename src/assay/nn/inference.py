"""What a net says of many pictures, in batches and without gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assay.core.progress import Progress

BATCH_SIZE = 256
"""Samples at a time, of pictures with 32 pixels a side."""

MIN_BATCH_SIZE = 16


def batch_size_for(x: Tensor) -> int:
    """How many of ``x`` (N, ...) to take at a time: larger pictures in smaller batches.

    What a layer makes of a batch then stays in the processor's cache: MobileNetV2 at 96 pixels takes half the time.
    """
    pixels = x.shape[2] * x.shape[3] if x.ndim == 4 else 0
    return max(MIN_BATCH_SIZE, min(BATCH_SIZE, BATCH_SIZE * 32 * 32 // max(pixels, 1)))


def forward_batched(net: nn.Module, x: Tensor, *, progress: Progress = lambda share: None) -> Tensor:
    """(N, K) for ``x`` (N, C, H, W) in [0, 1]; the net's mode is the caller's business."""
    parts = x.split(batch_size_for(x))
    found = []
    with torch.no_grad():
        for done, part in enumerate(parts, start=1):
            found.append(net(part))
            progress(done / len(parts))
    return torch.cat(found)


def predict(net: nn.Module, x: Tensor, *, progress: Progress = lambda share: None) -> Tensor:
    """(N,) int64: the classes that ``net`` names for ``x`` (N, C, H, W) in [0, 1]."""
    return forward_batched(net, x, progress=progress).argmax(1)
