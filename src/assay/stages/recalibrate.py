"""Recalibration of batch-norm statistics after the preceding weights have changed."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from assay.nn.batchnorm import batch_norms
from assay.nn.inference import batch_size_for

MAX_BATCH = 128  # images per forward pass; fewer of large images


def recalibrate_batchnorm(model: nn.Module, clean: Tensor) -> nn.Module:
    """Return a copy in eval mode with the batch-norm statistics of clean images.

    The average over batches is cumulative, with equal weights. No other weight changes, and dropout stays off. Without
    batch norm the copy equals ``model``.

    Args:
        model: Any model; unchanged.
        clean: Clean images (N, C, H, W) in [0, 1]; large ones in smaller batches.
    """
    model = copy.deepcopy(model).eval()
    norms = [norm for norm in batch_norms(model) if norm.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's convention for a cumulative average
        norm.train()
    batches = list(clean.split(min(MAX_BATCH, batch_size_for(clean))))
    if len(batches) > 1 and len(batches[-1]) == 1:  # a single image has no variance: join the last two batches
        batches[-2:] = [torch.cat(batches[-2:])]
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    return model
