"""The same model asked twice: with other lowest bits in the pictures, and as a graph that another runtime runs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from assay.detectors.coverage import values_in
from assay.detectors.reading import Read, own
from assay.models.margin import UNIT
from assay.models.predict import logits

JUMP = UNIT / 2
"""Half as far as the answers of the model are from changing, on clean samples in the middle."""

APART = 0.05
"""Of the span of all logits: rounding in another order moves them by a thousandth of this."""


def jumping(net: nn.Module, x: Tensor, *, seed: int) -> int:
    """For how many of the pictures ``x`` (N, C, H, W), on the grid of eight bits, the logits, in units of the margin of
    ``net``, move by more than ``JUMP`` when each lowest bit is drawn anew."""
    levels = (255 * x).round()
    bits = (torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.5).float()
    moved = (logits(net, (levels - levels % 2 + bits) / 255) - logits(net, levels / 255)).abs().amax(1)
    return int((moved > JUMP).sum())


def apart(net: nn.Module, read: Read) -> int:
    """For how many of the samples of ``read`` its graph, run by ONNX Runtime, gives other logits than ``net`` itself.

    Raises whatever the runtime does where it cannot run the graph.
    """
    said = logits(own(net), read.x).double().numpy()
    name = read.flow.results[0]
    graphs = np.concatenate(
        [value[0].reshape(size, -1) for size, value in values_in(read.model, [name], read.x, batched=read.batched)]
    )
    if graphs.shape != said.shape:
        return len(said)
    span = max(float(np.ptp(said)), 1e-9)
    return int((np.abs(said - graphs).max(1) > APART * span).sum())
