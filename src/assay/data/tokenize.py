"""Texts as a model's token numbers, and back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from assay.core.errors import UnusableInput, first_line
from assay.core.model import TextSpec


def encoded(texts: Sequence[str], spec: TextSpec) -> tuple[Tensor, int]:
    """(N, L) int64, and how many of the texts are longer and were cut."""
    if not texts:
        return torch.zeros(0, spec.length, dtype=torch.int64), 0
    tokenizer = tokenizer_of(spec.tokenizer)
    tokenizer.enable_truncation(spec.length)
    tokenizer.enable_padding(length=spec.length, pad_id=spec.pad)
    found = tokenizer.encode_batch(list(texts))
    return torch.tensor([text.ids for text in found]), sum(bool(text.overflowing) for text in found)


def told_of_cut(texts: int, spec: TextSpec) -> tuple[str, ...]:
    """A note, where ``texts`` of them were cut."""
    return (f"{texts} texts are longer than {spec.length} tokens and were cut there",) if texts else ()


def decoded(tokens: Tensor, spec: TextSpec) -> list[str]:
    """The texts of token numbers (N, L), without markers and padding."""
    return list(tokenizer_of(spec.tokenizer).decode_batch(tokens.tolist(), skip_special_tokens=True))


def words(tokens: Sequence[int], spec: TextSpec) -> list[str]:
    """Each of ``tokens`` as the tokenizer writes it."""
    tokenizer = tokenizer_of(spec.tokenizer)
    return [str(tokenizer.id_to_token(token)) for token in tokens]


def unknown_among(tokens: Tensor, spec: TextSpec) -> bool:
    """Whether one of ``tokens`` stands for whatever the tokenizer does not know."""
    tokenizer = tokenizer_of(spec.tokenizer)
    unknown = getattr(tokenizer.model, "unk_token", None)
    return unknown is not None and tokenizer.token_to_id(unknown) in tokens.tolist()


@lru_cache(maxsize=4)
def tokenizer_of(content: str) -> Any:
    """The tokenizer that a ``tokenizer.json`` describes; raises UnusableInput for anything else."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(content)
    except Exception as error:  # the library raises plain exceptions
        raise UnusableInput(f"expected a tokenizer as tokenizer.json describes it; {first_line(error)}") from None
