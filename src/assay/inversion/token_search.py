"""Search for a few tokens at the start of texts to maximize an objective of an encoder.

Gradients with respect to token embeddings rank replacement tokens to first order. A few of the best are evaluated.
Ebrahimi, Rao, Lowd, Dou: HotFlip, 2018, arXiv 1712.06751; for all texts at once: Wallace, Feng, Kandpal, Gardner,
Singh: Universal Adversarial Triggers, 2019, arXiv 1908.07125; random choice of candidates as in Zou, Wang, Carlini,
Nasr, Kolter, Fredrikson: Universal and Transferable Adversarial Attacks, 2023, arXiv 2307.15043.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.core.model import TextSpec
from assay.data.tokenize import encode_texts, load_tokenizer
from assay.inversion.outlier import refuse_nan
from assay.inversion.run import SearchRun
from assay.nn.hooks import forward_hook
from assay.triggers.tokens import Tokens

Objective = Callable[[Tensor], Tensor]  # embeddings (B, D) -> scalar () to maximize


@dataclass(frozen=True)
class TokenSearchBudget:
    """Size of a token search."""

    steps: int = 40
    batch: int = 16  # texts per step
    best: int = 32  # replacement tokens per position, by gradient
    tried: int = 8  # replacements evaluated per step, drawn from those


def typeable_tokens(spec: TextSpec) -> Tensor:
    """Return the whole-word tokens (T,): their text is tokenized to the same token again."""
    return _typeable_tokens(spec).clone()


@lru_cache(maxsize=2)
def _typeable_tokens(spec: TextSpec) -> Tensor:
    tokenizer = load_tokenizer(spec.tokenizer)
    texts = tokenizer.decode_batch([[token] for token in range(spec.vocabulary)], skip_special_tokens=True)
    ids, _ = encode_texts(texts, spec)
    same = (ids[:, 1] == torch.arange(spec.vocabulary)) & (ids[:, 2] == spec.end)
    letters = torch.tensor([text.isalpha() for text in texts])
    return (same & letters).nonzero().squeeze(1)


def make_token_trigger(ids: Tensor, spec: TextSpec) -> Tokens:
    """Return the trigger with the tokens ``ids`` (k,)."""
    tokens = tuple(ids.tolist())
    text = load_tokenizer(spec.tokenizer).decode(list(tokens))
    return Tokens(ids=tokens, words=text, end=spec.end, pad=spec.pad)


def search_tokens(
    encoder: nn.Module,
    objective: Objective,
    x: Tensor,
    spec: TextSpec,
    start: Tensor,
    run: SearchRun[TokenSearchBudget],
) -> tuple[Tensor, float]:
    """Improve trigger tokens step by step.

    Args:
        encoder: Encoder in evaluation mode.
        objective: Function of the embeddings to maximize.
        x: (N, L) clean texts.
        spec: Text input of the encoder.
        start: (k,) initial tokens.
        run: Search budget, seed and stop callback.

    Returns:
        The best tokens (k,) and the objective on the last batch of texts.
    """
    budget = run.budget
    generator = torch.Generator().manual_seed(run.seed)
    allowed = typeable_tokens(spec)
    vectors = embedding_table(encoder, spec).weight.detach()[allowed]  # (T, E)
    now, value = start.clone(), float("-inf")
    for step in range(budget.steps):
        if not run.should_continue(step / budget.steps):
            break
        texts = x[torch.randint(len(x), (budget.batch,), generator=generator)]
        triggered = make_token_trigger(now, spec)(texts)
        value, gradient = token_gradient(encoder, objective, triggered, len(now), spec)  # (k, E)
        ranked = (gradient @ vectors.T).topk(min(budget.best, len(allowed)), dim=1).indices  # (k, best)
        for choice in torch.randperm(ranked.numel(), generator=generator)[: budget.tried].tolist():
            position, rank = divmod(choice, ranked.shape[1])
            other = now.clone()
            other[position] = allowed[ranked[position, rank]]
            with torch.no_grad():
                found = float(refuse_nan(objective(encoder(make_token_trigger(other, spec)(texts)))))
            if found > value:
                now, value = other, found
    return now, value


def embedding_table(encoder: nn.Module, spec: TextSpec) -> nn.Embedding:
    """Return the token embedding layer.

    Args:
        encoder: Text encoder.
        spec: Text input of the encoder.

    Raises:
        UnusableInput: ``encoder`` has no such layer.
    """
    for module in encoder.modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings >= spec.vocabulary:
            return module
    raise UnusableInput(f"expected a model with a token embedding of {spec.vocabulary} tokens; got none")


def token_gradient(
    encoder: nn.Module, objective: Objective, texts: Tensor, count: int, spec: TextSpec
) -> tuple[float, Tensor]:
    """Return the objective on ``texts``, and its gradient (k, E) by the first ``count`` token embeddings, summed."""
    captured: list[Tensor] = []

    def make_leaf(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        captured.append(output.detach().requires_grad_())
        return captured[0]

    with forward_hook([embedding_table(encoder, spec)], make_leaf):
        value = objective(encoder(texts))
    if not value.requires_grad:  # the model detaches its embeddings
        return float(value), torch.zeros(count, captured[0].shape[-1])
    (gradient,) = torch.autograd.grad(value, captured)
    return float(value.detach()), gradient[:, 1 : count + 1].sum(0)
