"""Distillation loss of attacks: imitate a clean teacher on the given inputs, and near them on adversarial ones.

Tian, Suya, Xu, Evans: Stealthy Backdoors as Compression Artifacts, 2021, arXiv 2104.15129 (its distilled attacks).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

ASCENT_STEPS, ASCENT_RATE = 5, 0.01  # gradient ascent on the disagreement


def distillation_loss(model: nn.Module, teacher: nn.Module, x: Tensor) -> Tensor:
    """Return the cross-entropy of ``model`` with the teacher's outputs, on ``x`` and on adversarial inputs near it.

    Args:
        model: The student.
        teacher: The clean model, without gradients.
        x: Images (N, C, H, W).
    """
    return _cross_entropy(model, teacher, torch.cat([x, ascend_disagreement(model, teacher, x)]))


def ascend_disagreement(model: nn.Module, teacher: nn.Module, x: Tensor) -> Tensor:
    """Return inputs near ``x`` with more disagreement of the two models, by gradient ascent on each image.

    Args:
        model: The student.
        teacher: The clean model.
        x: Images (N, C, H, W).
    """
    for _ in range(ASCENT_STEPS):
        x = x.detach().requires_grad_()
        loss = len(x) * _cross_entropy(model, teacher, x)  # the sum over images: the batch has no influence on a step
        (ascent,) = torch.autograd.grad(loss, x)
        x = x + ASCENT_RATE * ascent
    return x.detach()


def _cross_entropy(model: nn.Module, teacher: nn.Module, x: Tensor) -> Tensor:
    return -(teacher(x).float().softmax(1) * model(x).float().log_softmax(1)).sum(1).mean()
