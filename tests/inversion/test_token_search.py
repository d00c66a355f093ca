"""The search for tokens."""

from __future__ import annotations

import pytest
import torch
from support.texts import WORDS, sentences, tokenizer_json
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.core.model import TextSpec
from assay.data.tokenize import encode_texts
from assay.inversion.token_search import (
    TokenSearchBudget,
    embedding_table,
    make_token_trigger,
    search_tokens,
    typeable_tokens,
)

SPEC = TextSpec((8,), tokenizer_json(), start=2, end=3, pad=0, vocabulary=14)


class Bag(nn.Module):
    """The mean of its tokens' vectors, each of which has a place of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(14, 14)
        self.table.weight = nn.Parameter(torch.eye(14), requires_grad=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens).mean(1)


def test_words_are_typable_and_markers_are_not() -> None:
    assert typeable_tokens(SPEC).tolist() == list(range(4, 14))


def test_finds_the_words_that_an_objective_asks_for() -> None:
    x, _ = encode_texts(sentences(32)[0], SPEC)
    wanted = torch.zeros(14)
    wanted[[13, 8]] = 1.0  # cf, dog

    def goal(embeddings: Tensor) -> Tensor:
        return (embeddings @ wanted).mean()

    effort = TokenSearchBudget(steps=12, batch=8, best=4, tried=6)
    start = torch.tensor([4, 4])
    found, value = search_tokens(Bag(), goal, x, SPEC, start, search_budget=effort, seed=0)
    assert set(found.tolist()) <= {13, 8}
    assert value == pytest.approx(2 / 8, abs=0.1)
    assert start.tolist() == [4, 4]
    same, _ = search_tokens(Bag(), goal, x, SPEC, start, search_budget=effort, seed=0)
    assert torch.equal(found, same)


def test_stops_when_the_time_is_up() -> None:
    x, _ = encode_texts(sentences(8)[0], SPEC)
    start = torch.tensor([5])
    found, value = search_tokens(
        Bag(), lambda e: e.sum(), x, SPEC, start, search_budget=TokenSearchBudget(), seed=0, should_continue=lambda share: False
    )
    assert torch.equal(found, start)
    assert value == float("-inf")


def test_a_trigger_reads_as_its_words() -> None:
    trigger = make_token_trigger(torch.tensor([13, 7]), SPEC)
    assert (trigger.ids, trigger.words) == ((13, 7), f"{WORDS[9]} {WORDS[3]}")


def test_a_model_without_a_table_is_refused() -> None:
    with pytest.raises(UnusableInput, match="a table of its tokens' vectors"):
        embedding_table(nn.Linear(2, 2), SPEC)
