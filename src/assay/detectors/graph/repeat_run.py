"""The same model asked twice: with other lowest bits in the pictures, and as a graph that another runtime runs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from assay.detectors.graph.activations import values_in
from assay.detectors.graph.read import Read, own
from assay.nn.inference import forward_batched
from assay.nn.unit_margin import TARGET_MARGIN

JUMP = TARGET_MARGIN / 2
"""Half as far as the answers of the model are from changing, on clean samples in the middle."""

FEWEST_JUMPS = 2
"""Of a single picture the logits may lie near a step by chance."""

APART = 0.05
"""Of the span of all logits: rounding in another order moves them by a thousandth of this."""


def settled(net: nn.Module, x: Tensor) -> bool:
    """Whether ``net`` says the same when it is asked the same again, which one with dropout does not."""
    return bool(torch.allclose(forward_batched(net, x), forward_batched(net, x), atol=1e-4, equal_nan=True))


def jumping(net: nn.Module, x: Tensor, *, seed: int) -> bool:
    """Whether the answers to pictures ``x`` (N, C, H, W), on the grid of eight bits, jump with the lowest bits.

    That is: for ``FEWEST_JUMPS`` the logit of the answer, in units of the margin of ``net``, moves by ``JUMP``.
    """
    levels = (255 * x).round()
    bits = (torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.5).float()
    before, after = forward_batched(net, levels / 255), forward_batched(net, (levels - levels % 2 + bits) / 255)
    answer = before.argmax(1, keepdim=True)
    moved = (after.gather(1, answer) - before.gather(1, answer)).abs()
    return int((moved > JUMP).sum()) >= FEWEST_JUMPS


def apart(net: nn.Module, read: Read) -> bool:
    """Whether the graph, run by ONNX Runtime, gives other logits than ``net`` itself for a sample of ``read``.

    Raises whatever the runtime does where it cannot run the graph.
    """
    said = forward_batched(own(net), read.x).double().numpy()
    name = read.flow.results[0]
    graphs = np.concatenate(
        [value[0].reshape(size, -1) for size, value in values_in(read.model, [name], read.x, batch=read.batch)]
    )
    if graphs.shape != said.shape:
        return True
    span = max(float(np.ptp(said)), 1e-9)
    return bool((np.abs(said - graphs) > APART * span).any())
