"""The trigger search: the smallest trigger of a family that sends clean pictures to one class.

All arms (a trigger being searched, each with its own goal) advance together as one batch: on small nets that is twice
as fast as one after another. See benchmarks/search_speed.py for what each choice here is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assay.inversion.families import Family, Parameters
from assay.inversion.prepare import forward_prepared

SUCCESS = 0.9
"""Share of pictures that must get the target for a trigger to count as working."""

COST_FACTOR = 1.3
"""How fast the weight of the trigger's size follows success. The original's 1.5 after 5 steps is slower here."""


@dataclass
class Candidates:
    """The state of a search. Every tensor has the arm as its first dimension.

    ``allowed`` (A, K) says which classes an arm may send pictures to: one class, a group, or any. Within a group the
    arm goes for whichever single class is the easiest (a soft maximum over classes of the mean log-probability).
    """

    allowed: Tensor  # (A, K) bool
    parameters: Parameters
    first: Parameters  # Adam's moments
    second: Parameters
    cost: Tensor  # (A,) weight of the size in the loss
    success: Tensor  # (A,) running share of pictures that get the arm's class
    reached: Tensor  # (A,) int64: the class that the arm goes for
    log_likelihood: Tensor  # (A,) running mean log-probability of that class, at any size
    best_size: Tensor  # (A,) the smallest size at which the arm succeeded; inf before it did
    level: Tensor  # (A,) running mean of the log size: where it settles has less noise than the smallest
    best: Parameters
    step: int = 0


def initialize(family: Family, allowed: Tensor, shape: tuple[int, int, int], generator: torch.Generator) -> Candidates:
    """Fresh arms, one for each row of ``allowed`` (A, K), for pictures of ``shape`` (C, H, W)."""
    arms = len(allowed)
    parameters = family.start(arms, shape, generator)
    zeros = tuple(torch.zeros_like(p) for p in parameters)
    return Candidates(
        allowed=allowed,
        parameters=parameters,
        first=zeros,
        second=zeros,
        cost=torch.full((arms,), family.pressure),
        success=torch.zeros(arms),
        reached=allowed.float().argmax(1),
        log_likelihood=torch.full((arms,), -100.0),
        best_size=torch.full((arms,), float("inf")),
        level=torch.zeros(arms),
        best=parameters,
    )


def select(arms: Candidates, index: Tensor) -> Candidates:
    """Only the arms at ``index`` (B,), in that order."""

    def pick(tensors: Parameters) -> Parameters:
        return tuple(t[index] for t in tensors)

    return Candidates(
        allowed=arms.allowed[index],
        parameters=pick(arms.parameters),
        first=pick(arms.first),
        second=pick(arms.second),
        cost=arms.cost[index],
        success=arms.success[index],
        reached=arms.reached[index],
        log_likelihood=arms.log_likelihood[index],
        best_size=arms.best_size[index],
        level=arms.level[index],
        best=pick(arms.best),
        step=arms.step,
    )


def advance(
    net: nn.Module,
    family: Family,
    arms: Candidates,
    x: Tensor,
    predicted: Tensor,
    *,
    steps: int,
    batch: int,
    generator: torch.Generator,
    tick: Callable[[], bool] = lambda: True,
) -> None:
    """Take ``steps`` steps with all arms, in place, or fewer where ``tick`` says False.

    ``net`` comes from ``prepare``; ``x`` (N, C, H, W) are clean pictures, ``predicted`` (N,) what the net says of them.
    """
    for _ in range(steps):
        if not tick():
            return
        index = torch.randint(len(x), (batch,), generator=generator)
        parameters = tuple(p.detach().requires_grad_() for p in arms.parameters)
        triggered = family.apply(parameters, x[index])  # (A, B, C, H, W)
        logits = forward_prepared(net, triggered.flatten(0, 1)).unflatten(0, triggered.shape[:2])
        # A picture that already has the class says nothing about the trigger: it does not count.
        counts = (predicted[index][None, :, None] != torch.arange(logits.shape[2])).float()  # (1, B, K)
        total = counts.sum(1).clamp(min=1)  # (1, K)
        likelihood = (logits.log_softmax(2) * counts).sum(1) / total  # (A, K)
        likelihood = likelihood.masked_fill(~arms.allowed, float("-inf"))
        size = family.size(parameters)
        objective = arms.cost * size - likelihood.logsumexp(1)
        gradients = torch.autograd.grad(objective.sum(), parameters)
        with torch.no_grad():
            _remember(arms, logits, likelihood, counts, total, size)
            _adam(arms, gradients, family.rate)


def _remember(
    arms: Candidates, logits: Tensor, likelihood: Tensor, counts: Tensor, total: Tensor, size: Tensor
) -> None:
    """Update what each arm goes for, how well it does, its best trigger so far, and the weight of its size."""
    arms.reached = likelihood.argmax(1)
    mine = torch.nn.functional.one_hot(logits.argmax(2), logits.shape[2]) * counts  # (A, B, K)
    hit = (mine.sum(1) / total).gather(1, arms.reached[:, None])[:, 0]
    now = likelihood.gather(1, arms.reached[:, None])[:, 0]
    arms.level = 0.9 * arms.level + 0.1 * size.log() if arms.step else size.log()
    memory = 0.7 if arms.step else 0.0
    arms.success = memory * arms.success + (1 - memory) * hit
    arms.log_likelihood = memory * arms.log_likelihood + (1 - memory) * now
    works = arms.success > SUCCESS
    better = works & (size < arms.best_size)
    arms.best_size = torch.where(better, size, arms.best_size)
    arms.best = tuple(
        torch.where(better.view(-1, *[1] * (p.dim() - 1)), p, b)
        for p, b in zip(arms.parameters, arms.best, strict=True)
    )
    arms.cost = torch.where(works, arms.cost * COST_FACTOR, arms.cost / COST_FACTOR)


def _adam(arms: Candidates, gradients: Parameters, rate: float, beta1: float = 0.5, beta2: float = 0.9) -> None:
    """One step of Adam (Kingma, Ba, 2015, arXiv 1412.6980); written out because arms carry their own state."""
    arms.step += 1
    arms.first = tuple(beta1 * m + (1 - beta1) * g for m, g in zip(arms.first, gradients, strict=True))
    arms.second = tuple(beta2 * v + (1 - beta2) * g * g for v, g in zip(arms.second, gradients, strict=True))
    arms.parameters = tuple(
        p - rate * (m / (1 - beta1**arms.step)) / ((v / (1 - beta2**arms.step)).sqrt() + 1e-8)
        for p, m, v in zip(arms.parameters, arms.first, arms.second, strict=True)
    )
