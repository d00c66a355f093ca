"""Tokenizers whose rules multiply a text, or run without end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from assay.core.errors import UnusableInput
from assay.data.tokenizer_bounds import refuse_unbounded_tokenizer


def replace(content: str, **pattern: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalizer": replace("x" * 100, String="x")}, "lengthens texts at most 64 times"),
        ({"normalizer": {"normalizers": [replace("xx", String="x")] * 8}}, "got one of 256 times"),
        ({"normalizer": replace("x" * 100, Regex="")}, "lengthens"),
        ({"decoder": {"decoders": [replace("x" * 100, String="x")]}}, "decoder"),
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}}}, "bounded time"),
        ({"pre_tokenizer": {"pretokenizers": [{"pattern": {"Regex": "(.*)\\1"}}]}}, "bounded time"),
        ({"post_processor": {"single": [{"Sequence": {"id": "A"}}] * 2}}, "got 2 texts"),
        ({"post_processor": {"processors": [{"special_tokens": {"[CLS]": {"ids": [1] * 99}}}]}}, "99 tokens"),
    ],
)
def test_unbounded_rules_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        refuse_unbounded_tokenizer(json.dumps(settings))


def test_ordinary_rules_pass() -> None:
    single = [{"SpecialToken": {"id": "[CLS]"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "[SEP]"}}]
    gpt2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    settings = {
        "normalizer": {"normalizers": [replace('"', String="``"), replace(" ", Regex=" {2,}"), {"type": "NFKC"}]},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": gpt2}},
        "post_processor": {"single": single, "special_tokens": {"[CLS]": {"ids": [1]}}},
    }
    refuse_unbounded_tokenizer(json.dumps(settings))
