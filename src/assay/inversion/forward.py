"""Forward passes of a prepared model, in batches that fit the processor's cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from assay.nn.precision import fast_autocast

BATCH_PIXELS = 2**16  # pixels per batch: larger batches do not fit into the processor's cache
MIN_BATCH = 8  # images
LARGE_IMAGE_PIXELS = 64 * 64  # images with more pixels get a smaller search budget, and fewer samples


def is_large_image(shape: Sequence[int]) -> bool:
    """Return whether one input of ``shape`` is an image (C, H, W) with more pixels than ``LARGE_IMAGE_PIXELS``."""
    return len(shape) == 3 and shape[1] * shape[2] > LARGE_IMAGE_PIXELS


def forward_prepared(model: nn.Module, x: Tensor) -> Tensor:
    """Run a prepared model in batches.

    Args:
        model: Model from ``prepare``.
        x: (N, C, H, W) images.

    Returns:
        (N, K) float32 logits, or embeddings for an encoder.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    with fast_autocast(x.device):
        return torch.cat([model(part) for part in x.split(batch_size_of(x))]).float()


def batch_size_of(x: Tensor) -> int:
    """Return the number of images in a batch.

    Args:
        x: (N, C, H, W) images.
    """
    return max(MIN_BATCH, BATCH_PIXELS // (x.shape[2] * x.shape[3]))
