"""A search for a few tokens at the beginning of texts that make an objective of an encoder large.

Gradients with respect to the tokens' vectors say which other tokens would raise it most, to first order; some of those
are tried. Ebrahimi, Rao, Lowd, Dou: HotFlip, 2018, arXiv 1712.06751; for all texts at once: Wallace, Feng, Kandpal,
Gardner, Singh: Universal Adversarial Triggers, 2019, arXiv 1908.07125; what is tried is drawn at random as in Zou,
Wang, Carlini, Nasr, Kolter, Fredrikson: Universal and Transferable Adversarial Attacks, 2023, arXiv 2307.15043.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.core.model import TextSpec
from assay.data.tokenize import encoded, tokenizer_of
from assay.triggers.tokens import Tokens

Objective = Callable[[Tensor], Tensor]
"""What shall be large: of embeddings (B, D) -> ()."""


@dataclass(frozen=True)
class TokenSearchBudget:
    """How much a search may do."""

    steps: int = 40
    batch: int = 16  # texts
    best: int = 32  # tokens a place that the gradient likes most, of which
    tried: int = 8  # are drawn a step


def typeable_tokens(spec: TextSpec) -> Tensor:
    """(T,) the tokens that are words of their own: as text they give the same token again."""
    return _typable(spec).clone()


@lru_cache(maxsize=2)
def _typable(spec: TextSpec) -> Tensor:
    tokenizer = tokenizer_of(spec.tokenizer)
    written = tokenizer.decode_batch([[token] for token in range(spec.vocabulary)], skip_special_tokens=True)
    found, _ = encoded(written, spec)
    again = (found[:, 1] == torch.arange(spec.vocabulary)) & (found[:, 2] == spec.end)
    letters = torch.tensor([text.isalpha() for text in written])
    return (again & letters).nonzero().squeeze(1)


def make_token_trigger(ids: Tensor, spec: TextSpec) -> Tokens:
    """The trigger of the tokens ``ids`` (k,)."""
    chosen = tuple(ids.tolist())
    text = tokenizer_of(spec.tokenizer).decode(list(chosen))
    return Tokens(ids=chosen, words=text, end=spec.end, pad=spec.pad)


def search_tokens(
    net: nn.Module,
    goal: Objective,
    x: Tensor,
    spec: TextSpec,
    start: Tensor,
    *,
    effort: TokenSearchBudget,
    seed: int,
    tick: Callable[[float], bool] = lambda share: True,
) -> tuple[Tensor, float]:
    """From the tokens ``start`` (k,) to better ones, and what ``goal`` was there on the last texts tried.

    ``net``: an encoder in evaluation mode; ``x`` (N, L): clean texts. ``tick`` gets the share of the work done and says
    whether there is time left.
    """
    generator = torch.Generator().manual_seed(seed)
    allowed = typeable_tokens(spec)
    vectors = embedding_table(net, spec).weight.detach()[allowed]  # (T, E)
    now, value = start.clone(), float("-inf")
    for step in range(effort.steps):
        if not tick(step / effort.steps):
            break
        texts = x[torch.randint(len(x), (effort.batch,), generator=generator)]
        value, slopes = _slopes(net, goal, make_token_trigger(now, spec)(texts), len(now), spec)  # (k, E)
        liked = (slopes @ vectors.T).topk(min(effort.best, len(allowed)), dim=1).indices  # (k, best)
        for choice in torch.randperm(liked.numel(), generator=generator)[: effort.tried].tolist():
            place, rank = divmod(choice, liked.shape[1])
            other = now.clone()
            other[place] = allowed[liked[place, rank]]
            with torch.no_grad():
                found = float(goal(net(make_token_trigger(other, spec)(texts))))
            if found > value:
                now, value = other, found
    return now, value


def embedding_table(net: nn.Module, spec: TextSpec) -> nn.Embedding:
    """The table of the tokens' vectors; raises UnusableInput where there is none."""
    for module in net.modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings >= spec.vocabulary:
            return module
    raise UnusableInput("expected a model with a table of its tokens' vectors; found none")


def _slopes(net: nn.Module, goal: Objective, texts: Tensor, count: int, spec: TextSpec) -> tuple[float, Tensor]:
    """``goal`` on ``texts``, and its gradient (k, E) with respect to the vectors behind the first marker, summed."""
    seen: list[Tensor] = []

    def remember(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[0]

    hook = embedding_table(net, spec).register_forward_hook(remember)
    try:
        value = goal(net(texts))
    finally:
        hook.remove()
    (gradient,) = torch.autograd.grad(value, seen)
    return float(value.detach()), gradient[:, 1 : count + 1].sum(0)
