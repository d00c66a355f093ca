"""The smallest latent shift: how far must all features move together until every picture gets class t?

No gradients, no steps: one small quadratic program a class. It ranks classes for the search, and sees warps that a mask
cannot describe. After the latent separation that backdoors leave (arXiv 2511.08944), in closed form.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.nn.head import last_linear

UNREACHABLE = 1e-9
"""Below this slack, which is 1 / (1 + |d|^2), a shift d is too long to be told from one that does not exist."""


def features_and_head(net: nn.Module, x: Tensor, batch: int = 128) -> tuple[Tensor, nn.Linear]:
    """The inputs (N, D) of the last linear layer for ``x`` (N, C, H, W), and that layer.

    Raises UnusableInput where that layer is not the one that makes the logits.
    """
    _, head = last_linear(net)
    seen: list[Tensor] = []
    logits: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().float()))
    try:
        with torch.no_grad():
            for start in range(0, len(x), batch):
                logits.append(net(x[start : start + batch]))
    finally:
        hook.remove()
    features = torch.cat([s.flatten(1) for s in seen]) if seen else torch.zeros(0, 0)
    if features.shape != (len(x), head.in_features) or head.out_features != logits[0].shape[1]:
        raise UnusableInput("expected a net whose last linear layer makes its logits; this one's does something else")
    return features, head


def smallest_shifts(features: Tensor, head: nn.Linear, *, exact: int = 32, quantile: float = 0.99) -> Tensor:
    """(K,) length of the smallest shift of ``features`` (N, D) that sends them to each class; inf where none does.

    Solved exactly for the ``exact`` classes with the smallest lower bound; the others keep their worst pair's bound.
    """
    weight = head.weight.detach().float()
    logits = features @ weight.T + (head.bias.detach().float() if head.bias is not None else 0)
    classes = len(weight)
    by_class = logits.T.contiguous()  # (K, N)
    worst = torch.stack([_high(by_class - by_class[t], quantile) for t in range(classes)])  # (K, K)
    distance = torch.cdist(weight[None], weight[None])[0].clamp(min=1e-6)
    bound = (worst / distance).fill_diagonal_(0).amax(dim=1).clamp(min=0)
    shifts = bound.clone()
    for t in bound.argsort()[:exact].tolist():
        others = torch.arange(classes) != t
        shifts[t] = _least_distance((weight[t] - weight[others]).numpy(), worst[t, others].numpy())
    return shifts


def _high(values: Tensor, quantile: float) -> Tensor:
    """(K, N) -> (K,): ``torch.quantile(values, quantile, dim=1)`` for a quantile near 1, without sorting it all."""
    position = quantile * (values.shape[1] - 1)
    below = math.floor(position)
    top = values.topk(values.shape[1] - below, dim=1).values
    return torch.lerp(top[:, -1], top[:, max(0, top.shape[1] - 2)], position - below)


def _least_distance(a: np.ndarray, m: np.ndarray) -> float:
    """min |d| subject to a d >= m, as a non-negative least-squares problem (Lawson, Hanson, 1974, chapter 23)."""
    system = np.vstack([a.T, m[None]])
    goal = np.zeros(len(system))
    goal[-1] = 1.0
    solution, _ = nnls(system, goal, maxiter=50 * system.shape[1])
    residual = system @ solution - goal
    if abs(residual[-1]) < UNREACHABLE:  # no shift at all: the class's weights lie between those of the others
        return math.inf
    return float(np.linalg.norm(residual[:-1]) / abs(residual[-1]))
