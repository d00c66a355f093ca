"""Tests of the token search."""

from __future__ import annotations

import pytest
import torch
from support.texts import WORDS, sentences, tokenizer_json
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.core.model import TextSpec
from assay.data.tokenize import encode_texts
from assay.inversion.run import SearchRun
from assay.inversion.token_search import (
    TokenSearchBudget,
    embedding_table,
    make_token_trigger,
    search_tokens,
    typeable_tokens,
)

SPEC = TextSpec((8,), tokenizer_json(), start=2, end=3, pad=0, vocabulary=14)


class Bag(nn.Module):
    """Mean of one-hot token embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(14, 14)
        self.table.weight = nn.Parameter(torch.eye(14), requires_grad=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens).mean(1)


def test_words_are_typeable_and_markers_are_not() -> None:
    assert typeable_tokens(SPEC).tolist() == list(range(4, 14))


def test_search_finds_tokens_of_the_objective() -> None:
    x, _ = encode_texts(sentences(32)[0], SPEC)
    wanted = torch.zeros(14)
    wanted[[13, 8]] = 1.0  # cf, dog

    def objective(embeddings: Tensor) -> Tensor:
        return (embeddings @ wanted).mean()

    run = SearchRun(TokenSearchBudget(steps=12, batch=8, best=4, tried=6), 0)
    start = torch.tensor([4, 4])
    found, value = search_tokens(Bag(), objective, x, SPEC, start, run)
    assert set(found.tolist()) <= {13, 8}
    assert value == pytest.approx(2 / 8, abs=0.1)
    assert start.tolist() == [4, 4]
    same, _ = search_tokens(Bag(), objective, x, SPEC, start, run)
    assert torch.equal(found, same)


def test_stop_callback_ends_the_search() -> None:
    x, _ = encode_texts(sentences(8)[0], SPEC)
    start = torch.tensor([5])
    run = SearchRun(TokenSearchBudget(), 0, lambda fraction: False)
    found, value = search_tokens(Bag(), lambda e: e.sum(), x, SPEC, start, run)
    assert torch.equal(found, start)
    assert value == float("-inf")


def test_trigger_text_is_decoded() -> None:
    trigger = make_token_trigger(torch.tensor([13, 7]), SPEC)
    assert (trigger.ids, trigger.words) == ((13, 7), f"{WORDS[9]} {WORDS[3]}")


def test_model_without_token_embedding_raises() -> None:
    with pytest.raises(UnusableInput, match="a token embedding of 14 tokens; got none"):
        embedding_table(nn.Linear(2, 2), SPEC)
