"""Imitating a clean teacher, on the given inputs and on those near them where the two nets differ most.

Tian, Suya, Xu, Evans: Stealthy Backdoors as Compression Artifacts, 2021, arXiv 2104.15129 (its distilled attacks).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEPS, RATE = 5, 0.01
"""Of the gradient ascent to where the nets differ."""


def like_teacher(net: nn.Module, teacher: nn.Module, x: Tensor) -> Tensor:
    """Cross-entropy of ``net`` to what ``teacher`` says of ``x`` (N, C, H, W), and of where they differ near it."""
    return _to(net, teacher, torch.cat([x, apart(net, teacher, x)]))


def apart(net: nn.Module, teacher: nn.Module, x: Tensor) -> Tensor:
    """Inputs near ``x`` (N, C, H, W) on which ``net`` is less like ``teacher``: a few steps up the slope of each."""
    for _ in range(STEPS):
        x = x.detach().requires_grad_()
        loss = len(x) * _to(net, teacher, x)  # each picture climbs its own, in whatever batch it is
        (ascent,) = torch.autograd.grad(loss, x)
        x = x + RATE * ascent
    return x.detach()


def _to(net: nn.Module, teacher: nn.Module, x: Tensor) -> Tensor:
    return -(teacher(x).float().softmax(1) * net(x).float().log_softmax(1)).sum(1).mean()
