"""Batched inference without gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.core.progress import Progress

BATCH_SIZE = 256  # for images of 32 x 32 pixels
MIN_BATCH_SIZE = 16


def batch_size_for(x: Tensor) -> int:
    """Return the batch size for inputs ``x`` (N, ...): smaller for larger images.

    The activations of a batch then fit into the processor's cache. MobileNetV2 at 96 pixels takes half the time.
    """
    pixels = x.shape[2] * x.shape[3] if x.ndim == 4 else 0
    return max(MIN_BATCH_SIZE, min(BATCH_SIZE, BATCH_SIZE * 32 * 32 // max(pixels, 1)))


def forward_batched(model: nn.Module, x: Tensor, *, progress: Progress = lambda fraction: None) -> Tensor:
    """Run ``model`` on all inputs. The caller sets the train or eval mode.

    Args:
        model: Classifier or encoder.
        x: (N, C, H, W) images in [0, 1], or (N, L) tokens.
        progress: Receives the completed fraction.

    Returns:
        (N, K) logits or embeddings.
    """
    parts = x.split(batch_size_for(x))
    outputs = []
    with torch.no_grad():
        for done, part in enumerate(parts, start=1):
            outputs.append(model(part))
            progress(done / len(parts))
    return torch.cat(outputs)


def predict(model: nn.Module, x: Tensor, *, progress: Progress = lambda fraction: None) -> Tensor:
    """Predict the class of all inputs. The caller sets the train or eval mode.

    Args:
        model: Classifier.
        x: (N, C, H, W) images in [0, 1], or (N, L) tokens.
        progress: Receives the completed fraction.

    Returns:
        (N,) int64 classes.
    """
    return forward_batched(model, x, progress=progress).argmax(1)


def forward_finite(model: nn.Module, x: Tensor) -> Tensor:
    """Return the outputs (N, ...) of a model.

    Args:
        model: Classifier or encoder.
        x: Clean inputs (N, ...).

    Raises:
        UnusableInput: An output is NaN or infinite.
    """
    outputs = forward_batched(model, x)
    if not outputs.isfinite().all():
        raise UnusableInput(
            "expected finite logits for the clean samples, got NaN or infinity. Fix: check the weights."
        )
    return outputs
