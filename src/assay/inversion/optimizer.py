"""Optimizer for the smallest trigger of a family from clean images to one class.

All candidates (one trigger each, with its own target classes) advance together, in batches that fit the processor's
cache. On small models this is twice as fast as one after another. The gradients of one batch are in memory at a time.
benchmarks/search_speed.py measures the gain of each choice made here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from assay.core.errors import Unmeasurable
from assay.inversion.families import Family, Parameters
from assay.inversion.forward import batch_size_of, forward_prepared
from assay.inversion.outlier import refuse_nan
from assay.inversion.run import CleanImages

SUCCESS = 0.9  # fraction of images that must get the target class for a trigger to count as working

MAX_ZERO_GRADIENTS = 0.5  # fraction of candidates without a gradient of the model at the first step; clean models: 0

# Factor of the objective in the backward pass. Many gradients of a saturated model are denormal numbers, with which
# processors are up to ten times slower. A power of two changes no digit of the other gradients.
GRADIENT_SCALE = 2.0**32

# Growth of the size penalty after a success, decay otherwise. Neural Cleanse uses 1.5 after 5 steps: slower here.
COST_FACTOR = 1.3


@dataclass
class Candidates:
    """State of a search. Every tensor has the candidate as its first dimension.

    ``allowed`` (A, K) lists the target classes of each candidate: one class, a group, or any class. Within a group, the
    candidate pursues the single easiest class (a soft maximum over classes of the mean log-probability).
    """

    allowed: Tensor  # (A, K) bool
    parameters: Parameters
    first_moment: Parameters  # of Adam
    second_moment: Parameters
    cost: Tensor  # (A,) weight of the size in the loss
    success: Tensor  # (A,) running fraction of images with the candidate's class
    reached: Tensor  # (A,) int64: class that the candidate pursues
    log_likelihood: Tensor  # (A,) running mean log-probability of that class, at any size
    best_size: Tensor  # (A,) smallest size of a working trigger; inf before the first success
    level: Tensor  # (A,) running mean of the log size: less noisy than the smallest size
    best: Parameters  # triggers of that size
    step: int = 0


@dataclass(frozen=True)
class Steps:
    """Number of optimization steps and the random batches for them."""

    count: int
    batch_size: int  # images per candidate and step
    generator: torch.Generator
    should_continue: Callable[[], bool] = lambda: True  # False stops before the next step


def initialize(family: Family, allowed: Tensor, shape: tuple[int, int, int], generator: torch.Generator) -> Candidates:
    """Create new candidates, one for each row of ``allowed``.

    Args:
        family: Trigger family.
        allowed: (A, K) bool, target classes of each candidate.
        shape: Image shape (C, H, W).
        generator: Random generator of the initial parameters.

    Returns:
        Candidates at step 0.
    """
    count = len(allowed)
    parameters = family.initialize(count, shape, generator)
    zeros = tuple(torch.zeros_like(p) for p in parameters)
    return Candidates(
        allowed=allowed,
        parameters=parameters,
        first_moment=zeros,
        second_moment=zeros,
        cost=torch.full((count,), family.size_penalty),
        success=torch.zeros(count),
        reached=allowed.float().argmax(1),
        log_likelihood=torch.full((count,), -100.0),
        best_size=torch.full((count,), float("inf")),
        level=torch.zeros(count),
        best=parameters,
    )


def select(candidates: Candidates, index: Tensor) -> Candidates:
    """Return only the candidates at ``index`` (B,), in that order."""

    def pick(tensors: Parameters) -> Parameters:
        return tuple(t[index] for t in tensors)

    return Candidates(
        allowed=candidates.allowed[index],
        parameters=pick(candidates.parameters),
        first_moment=pick(candidates.first_moment),
        second_moment=pick(candidates.second_moment),
        cost=candidates.cost[index],
        success=candidates.success[index],
        reached=candidates.reached[index],
        log_likelihood=candidates.log_likelihood[index],
        best_size=candidates.best_size[index],
        level=candidates.level[index],
        best=pick(candidates.best),
        step=candidates.step,
    )


def advance(model: nn.Module, family: Family, candidates: Candidates, images: CleanImages, steps: Steps) -> None:
    """Take optimization steps with all candidates, in place.

    Args:
        model: Model from ``prepare``.
        family: Trigger family of the candidates.
        candidates: State of the search.
        images: Clean images to draw batches from.
        steps: Number of steps and batch size. The steps end early when ``should_continue`` returns False.

    Raises:
        Unfinished: The model output NaN, or its gradient is not finite.
        Unmeasurable: The initial triggers have no gradient.
    """
    rows = max(1, batch_size_of(images.x) // steps.batch_size)  # candidates with gradients in memory at a time
    parts = [slice(start, start + rows) for start in range(0, len(candidates.cost), rows)]
    for _ in range(steps.count):
        if not steps.should_continue():
            return
        index = torch.randint(len(images.x), (steps.batch_size,), generator=steps.generator)
        batch = CleanImages(images.x[index], images.predicted[index])
        found = [_evaluate(model, family, candidates, part, batch) for part in parts]
        gradients = tuple(torch.cat(each) for each in zip(*(part.gradients for part in found), strict=True))
        if candidates.step == 0:
            _require_gradients(gradients, _size_gradients(family, candidates))
        success, likelihood, size = (torch.cat(each) for each in zip(*(part.effects for part in found), strict=True))
        with torch.no_grad():
            _update_statistics(candidates, success, likelihood, size)
            _adam_step(candidates, gradients, family.learning_rate)


class _Evaluation(NamedTuple):
    """Effects and gradients of some candidates on one batch of images."""

    gradients: Parameters  # of the objective, each (A, ...)
    effects: tuple[Tensor, Tensor, Tensor]  # success (A, K), mean log-probabilities (A, K), size (A,)


def _evaluate(model: nn.Module, family: Family, candidates: Candidates, part: slice, batch: CleanImages) -> _Evaluation:
    """Apply some candidates to a batch of images.

    Args:
        model: Model from ``prepare``.
        family: Trigger family of the candidates.
        candidates: State of the search.
        part: The candidates to evaluate.
        batch: B clean images.

    Raises:
        Unfinished: The model output NaN, or its gradient is not finite.
    """
    parameters = tuple(p[part].detach().requires_grad_() for p in candidates.parameters)
    triggered = family.apply(parameters, batch.x)  # (A, B, C, H, W)
    logits = forward_prepared(model, triggered.flatten(0, 1)).unflatten(0, triggered.shape[:2])
    # An image that has the class without the trigger gives no information about the trigger: it does not count.
    counts = (batch.predicted[None, :, None] != torch.arange(logits.shape[2])).float()  # (1, B, K)
    total = counts.sum(1).clamp(min=1)  # (1, K)
    likelihood = refuse_nan((logits.log_softmax(2) * counts).sum(1) / total)  # (A, K)
    likelihood = likelihood.masked_fill(~candidates.allowed[part], float("-inf"))
    size = family.size(parameters)
    objective = candidates.cost[part] * size - likelihood.logsumexp(1)
    gradients = tuple(refuse_nan(gradient) for gradient in _gradients(objective.sum(), parameters))
    hits = torch.nn.functional.one_hot(logits.argmax(2), logits.shape[2]) * counts  # (A, B, K)
    return _Evaluation(gradients, (hits.sum(1) / total, likelihood.detach(), size.detach()))


def _size_gradients(family: Family, candidates: Candidates) -> Parameters:
    """Return the gradients of the size penalty alone, each (A, ...)."""
    parameters = tuple(p.detach().requires_grad_() for p in candidates.parameters)
    penalty = (candidates.cost * family.size(parameters)).sum()
    return _gradients(penalty, parameters)


def _gradients(objective: Tensor, parameters: Parameters) -> Parameters:
    """Return the gradients of a number, each (A, ...); 0 for a parameter without influence."""
    scaled = torch.autograd.grad(GRADIENT_SCALE * objective, parameters, allow_unused=True, materialize_grads=True)
    return tuple(gradient / GRADIENT_SCALE for gradient in scaled)


def _require_gradients(gradients: Parameters, of_size: Parameters) -> None:
    """Check that the model contributes to the gradients of most candidates.

    Args:
        gradients: Gradients of the objective, each (A, ...).
        of_size: Gradients of the size penalty alone.

    Raises:
        Unmeasurable: The model contributes nothing for at least half of the candidates.
    """
    equal = [(whole == part).flatten(1).all(1) for whole, part in zip(gradients, of_size, strict=True)]
    zero = torch.stack(equal).all(0)
    if float(zero.float().mean()) >= MAX_ZERO_GRADIENTS:
        raise Unmeasurable(f"gets no usable gradients: zero for {int(zero.sum())} of {len(zero)} initial triggers")


def _update_statistics(candidates: Candidates, success: Tensor, likelihood: Tensor, size: Tensor) -> None:
    """Update the pursued class, the success, the best trigger and the size penalty of each candidate.

    Args:
        candidates: State before the step; updated in place.
        success: (A, K) fraction of the batch with each class.
        likelihood: (A, K) mean log-probabilities in the batch.
        size: (A,) size of each trigger.
    """
    candidates.reached = likelihood.argmax(1)
    hit = success.gather(1, candidates.reached[:, None])[:, 0]
    now = likelihood.gather(1, candidates.reached[:, None])[:, 0]
    candidates.level = 0.9 * candidates.level + 0.1 * size.log() if candidates.step else size.log()
    memory = 0.7 if candidates.step else 0.0
    candidates.success = memory * candidates.success + (1 - memory) * hit
    candidates.log_likelihood = memory * candidates.log_likelihood + (1 - memory) * now
    works = candidates.success > SUCCESS
    better = works & (size < candidates.best_size)
    candidates.best_size = torch.where(better, size, candidates.best_size)
    candidates.best = tuple(
        torch.where(better.view(-1, *[1] * (p.dim() - 1)), p, b)
        for p, b in zip(candidates.parameters, candidates.best, strict=True)
    )
    candidates.cost = torch.where(works, candidates.cost * COST_FACTOR, candidates.cost / COST_FACTOR)


def _adam_step(
    candidates: Candidates, gradients: Parameters, learning_rate: float, beta1: float = 0.5, beta2: float = 0.9
) -> None:
    """Take one step of Adam (Kingma, Ba, 2015, arXiv 1412.6980).

    Not ``torch.optim.Adam``: ``select`` drops and reorders candidates together with their moments.
    """
    candidates.step += 1
    step = candidates.step
    candidates.first_moment = tuple(
        beta1 * m + (1 - beta1) * g for m, g in zip(candidates.first_moment, gradients, strict=True)
    )
    candidates.second_moment = tuple(
        beta2 * v + (1 - beta2) * g * g for v, g in zip(candidates.second_moment, gradients, strict=True)
    )
    candidates.parameters = tuple(
        p - learning_rate * (m / (1 - beta1**step)) / ((v / (1 - beta2**step)).sqrt() + 1e-8)
        for p, m, v in zip(candidates.parameters, candidates.first_moment, candidates.second_moment, strict=True)
    )
