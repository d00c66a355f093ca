"""Comparison of two runs of one model: with other lowest bits in the images, or as a graph in another runtime."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from assay.detectors.graph.activations import iterate_values
from assay.detectors.graph.read import ReadableGraph, unwrap
from assay.nn.inference import forward_batched
from assay.nn.unit_margin import TARGET_MARGIN

JUMP = TARGET_MARGIN / 2  # half the median margin of clean samples, in logits
MIN_JUMPS = 2  # images; the logits of a single image may lie near a step by chance
MAX_DIFFERENCE = 0.05  # of the span of all logits; another order of rounding causes a thousandth of the span


def is_deterministic(module: nn.Module, x: Tensor) -> bool:
    """Return whether two runs on ``x`` (N, ...) give the same logits, unlike those of a model with active dropout."""
    return bool(torch.allclose(forward_batched(module, x), forward_batched(module, x), atol=1e-4, equal_nan=True))


def is_lsb_sensitive(module: nn.Module, x: Tensor, *, seed: int) -> bool:
    """Return whether the logits jump if the lowest bits of 8-bit images change.

    Args:
        module: A model with logits in margin units.
        x: Images (N, C, H, W).
        seed: Seed of the new lowest bits.

    Returns:
        True if the logit of the predicted class moves by more than ``JUMP`` for ``MIN_JUMPS`` images or more.
    """
    levels = (255 * x).round()
    bits = (torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.5).float()
    before, after = (
        forward_batched(module, levels / 255),
        forward_batched(module, (levels - levels % 2 + bits) / 255),
    )
    predicted = before.argmax(1, keepdim=True)
    moved = (after.gather(1, predicted) - before.gather(1, predicted)).abs()
    return int((moved > JUMP).sum()) >= MIN_JUMPS


def differs_from_export(module: nn.Module, read: ReadableGraph) -> bool:
    """Return whether ONNX Runtime and the module compute different logits.

    Args:
        module: The model.
        read: The model's exported graph, and samples for it.

    Raises:
        Exception: ONNX Runtime cannot run the graph; any of its errors.
    """
    expected = forward_batched(unwrap(module), read.x).double().numpy()
    name = read.graph.results[0]
    exported = np.concatenate(
        [value[0].reshape(size, -1) for size, value in iterate_values(read.model, [name], read.x, batch=read.batch)]
    )
    if exported.shape != expected.shape:
        return True
    span = max(float(np.ptp(expected)), 1e-9)
    return bool((np.abs(expected - exported) > MAX_DIFFERENCE * span).any())
