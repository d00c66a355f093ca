"""Conversion between texts and a model's token numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from assay.core.model import TextSpec
from assay.data.foreign import one_line_errors
from assay.data.tokenizer_bounds import refuse_unbounded_tokenizer

PLACE, USABLE = "tokenizer.json", "a working tokenizer of the library tokenizers"


def encode_texts(texts: Sequence[str], spec: TextSpec) -> tuple[Tensor, int]:
    """Return the token numbers of texts.

    Args:
        texts: N texts.
        spec: The model's input specification.

    Returns:
        Token numbers (N, L) int64, and the number of texts cut at L tokens.
    """
    if not texts:
        return torch.zeros(0, spec.length, dtype=torch.int64), 0
    tokenizer = load_tokenizer(spec.tokenizer)
    tokenizer.enable_truncation(spec.length)
    tokenizer.enable_padding(length=spec.length, pad_id=spec.pad)
    with one_line_errors(PLACE, USABLE):
        encodings = tokenizer.encode_batch(list(texts))
    cut = sum(bool(encoding.overflowing) for encoding in encodings)
    return torch.tensor([encoding.ids for encoding in encodings]), cut


def truncation_notes(cut: int, spec: TextSpec) -> tuple[str, ...]:
    """Return a note if ``encode_texts`` cut some texts.

    Args:
        cut: Number of cut texts.
        spec: The model's input specification.
    """
    return (f"{cut} texts are longer than {spec.length} tokens and were cut there",) if cut else ()


def decode_texts(tokens: Tensor, spec: TextSpec) -> list[str]:
    """Return the texts of token numbers (N, L), without markers and padding.

    Args:
        tokens: Token numbers (N, L) int64.
        spec: The model's input specification.
    """
    tokenizer = load_tokenizer(spec.tokenizer)
    with one_line_errors(PLACE, USABLE):
        return list(tokenizer.decode_batch(tokens.tolist(), skip_special_tokens=True))


def contains_unknown(tokens: Tensor, spec: TextSpec) -> bool:
    """Return True if ``tokens`` contain the token for unknown words.

    Args:
        tokens: Token numbers int64.
        spec: The model's input specification.
    """
    tokenizer = load_tokenizer(spec.tokenizer)
    unknown = getattr(tokenizer.model, "unk_token", None)
    return unknown is not None and tokenizer.token_to_id(unknown) in tokens.tolist()


@lru_cache(maxsize=4)
def load_tokenizer(content: str) -> Any:
    """Return the tokenizer of a ``tokenizer.json``; raise UnusableInput for other content."""
    from tokenizers import Tokenizer

    refuse_unbounded_tokenizer(content)
    with one_line_errors(PLACE, USABLE):  # the library raises plain exceptions, and panics
        return Tokenizer.from_str(content)
