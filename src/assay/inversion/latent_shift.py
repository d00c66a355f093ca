"""Latent shift: the shortest common shift of all features towards one class for every image.

The shift needs no gradient steps: each class is one small quadratic program. The shift ranks classes for the search,
and detects warps too, in contrast to a mask. After the latent separation of backdoors (arXiv 2511.08944), in closed
form.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.nn.head import last_linear
from assay.nn.hooks import capture_inputs

# Minimum slack 1 / (1 + |d|^2) of a shift d. Below it, a long shift is indistinguishable from an infeasible one.
UNREACHABLE = 1e-9


def features_and_head(model: nn.Module, x: Tensor, batch: int = 128) -> tuple[Tensor, nn.Linear]:
    """Return the inputs of the last linear layer, and that layer.

    Args:
        model: Classifier in eval mode.
        x: (N, C, H, W) images.
        batch: Images per batch.

    Returns:
        Features (N, D) and the linear layer.

    Raises:
        UnusableInput: The last linear layer does not compute the logits.
    """
    _, head = last_linear(model)
    with capture_inputs(head) as captured, torch.no_grad():
        logits = [model(x[start : start + batch]) for start in range(0, len(x), batch)]
    features = torch.cat([part.float().flatten(1) for part in captured]) if captured else torch.zeros(0, 0)
    if features.shape != (len(x), head.in_features) or head.out_features != logits[0].shape[1]:
        raise UnusableInput("expected a model whose last linear layer gives the logits; got another use of that layer")
    return features, head


def smallest_shifts(features: Tensor, head: nn.Linear, *, exact: int = 32, quantile: float = 0.99) -> Tensor:
    """Compute the length of the smallest feature shift to each class.

    Args:
        features: (N, D) features of clean images.
        head: Linear layer from features to logits.
        exact: Number of classes with an exact solution, smallest lower bound first. Others keep the lower bound of
            their hardest pair.
        quantile: Required success rate of the shift.

    Returns:
        (K,) lengths; inf for unreachable classes.
    """
    weight = head.weight.detach().float()
    logits = features @ weight.T + (head.bias.detach().float() if head.bias is not None else 0)
    classes = len(weight)
    by_class = logits.T.contiguous()  # (K, N)
    worst = torch.stack([_high_quantile(by_class - by_class[t], quantile) for t in range(classes)])  # (K, K)
    distance = torch.cdist(weight[None], weight[None])[0].clamp(min=1e-6)
    bound = (worst / distance).fill_diagonal_(0).amax(dim=1).clamp(min=0)
    shifts = bound.clone()
    for t in bound.argsort()[:exact].tolist():
        others = torch.arange(classes) != t
        shifts[t] = _least_distance((weight[t] - weight[others]).numpy(), worst[t, others].numpy())
    return shifts


def _high_quantile(values: Tensor, quantile: float) -> Tensor:
    """Return ``torch.quantile(values, quantile, dim=1)``, (K, N) -> (K,), without a full sort."""
    position = quantile * (values.shape[1] - 1)
    below = math.floor(position)
    top = values.topk(values.shape[1] - below, dim=1).values
    return torch.lerp(top[:, -1], top[:, max(0, top.shape[1] - 2)], position - below)


def _least_distance(a: np.ndarray, m: np.ndarray) -> float:
    """Return min |d| subject to a d >= m, as non-negative least squares (Lawson, Hanson, 1974, chapter 23)."""
    from scipy.optimize import nnls  # a tenth of the start of an audit

    system = np.vstack([a.T, m[None]])
    goal = np.zeros(len(system))
    goal[-1] = 1.0
    solution, _ = nnls(system, goal, maxiter=50 * system.shape[1])
    residual = system @ solution - goal
    if abs(residual[-1]) < UNREACHABLE:  # infeasible: the class's weights lie between those of the other classes
        return math.inf
    return float(np.linalg.norm(residual[:-1]) / abs(residual[-1]))
