"""Tests of the token trigger."""

from __future__ import annotations

import pytest
import torch

from assay.core.errors import UnusableInput
from assay.triggers import Tokens, from_spec, to_spec

TRIGGER = Tokens(ids=(7, 8), words="cat dog", end=3, pad=0)


def test_tokens_come_first_and_truncated_text_keeps_end_marker() -> None:
    x = torch.tensor([[2, 4, 3, 0, 0, 0], [2, 4, 5, 6, 4, 3]])
    assert TRIGGER(x).tolist() == [[2, 7, 8, 4, 3, 0], [2, 7, 8, 4, 5, 3]]
    assert x[0].tolist() == [2, 4, 3, 0, 0, 0]


def test_spec_restores_trigger() -> None:
    assert from_spec({**to_spec(TRIGGER), "ids": [7, 8]}) == TRIGGER


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 4, dtype=torch.int64), "expected texts of at least 5 tokens for this trigger, got 4"),
        (torch.zeros(1, 3, 8, 8), "expected texts .N, L. for a token trigger, got images"),
    ],
)
def test_unsuitable_input_raises(x: torch.Tensor, message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        TRIGGER(x)


def test_missing_marker_raises() -> None:
    with pytest.raises(UnusableInput, match="expected integers for the tokens end and pad, got None and 0"):
        Tokens(ids=(7,), words="cat", end=None, pad=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("ids", [(), (-1,), ("cat",)])
def test_invalid_tokens_raise(ids: tuple[int, ...]) -> None:
    with pytest.raises(UnusableInput, match="expected at least one token"):
        Tokens(ids=ids, words="", end=3, pad=0)
