"""Text classifiers and text encoders of transformers, with their tokenizer and their pooling.

Only ``tokenizer.json`` is read of a tokenizer, by the library ``tokenizers``, which runs no code of the model's. How an
encoder's states become one embedding stands in ``1_Pooling/config.json``, as sentence-transformers write it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assay.artifact import TextSpec
from assay.data.text import tokenizer_of
from assay.errors import UnusableInput
from assay.formats.files import MAX_JSON_BYTES, inside, read_json
from assay.formats.pooling import Pooling

INPUT = "input_ids"
"""What transformers calls the main input of a model that takes text."""

TOKENIZER = "tokenizer.json"
POOLING = "1_Pooling/config.json"
LENGTHS = {"sentence_bert_config.json": "max_seq_length", "tokenizer_config.json": "model_max_length"}
LONGEST = 512
"""Tokens, where nobody asks for more or fewer."""


class _OfText(nn.Module):
    """A transformers model of text, which sees no further than the longest text of a batch reaches."""

    def __init__(self, model: nn.Module, pad: int) -> None:
        super().__init__()
        self.model = model
        self.pad = pad

    def _answer(self, tokens: Tensor) -> tuple[Any, Tensor]:
        """What the model answers, and which of its states are of text (N, T)."""
        if not torch.compiler.is_exporting():
            tokens = tokens[:, : max(1, int((tokens != self.pad).sum(1).max()))]
        mask = (tokens != self.pad).long()
        return self.model(input_ids=tokens, attention_mask=mask), mask


class TextLogits(_OfText):
    """Token numbers (N, L) -> logits (N, K)."""

    def forward(self, tokens: Tensor) -> Tensor:
        return self._answer(tokens)[0].logits


class TextEmbeddings(_OfText):
    """Token numbers (N, L) -> embeddings (N, D)."""

    def __init__(self, model: nn.Module, pad: int, pooling: Pooling) -> None:
        super().__init__(model, pad)
        self.pooling = pooling

    def extra_repr(self) -> str:
        """What is no weight, and tells two of these apart."""
        return f"pooling={self.pooling}"

    def forward(self, tokens: Tensor) -> Tensor:
        answer, mask = self._answer(tokens)
        if self.pooling == "pooler":
            return answer.pooler_output
        states = answer.last_hidden_state  # (N, T, D)
        if self.pooling == "cls":
            return states[:, 0]
        weights = mask.unsqueeze(2).to(states)
        return (states * weights).sum(1) / weights.sum(1)


def text_spec(path: Path, settings: dict[str, Any], length: int | None) -> TextSpec:
    """How texts become inputs of the model in the folder ``path``, whose config is ``settings``.

    ``length``: tokens, None for as many as the model was made for. Raises UnusableInput where the folder has no
    tokenizer, or not this model's.
    """
    if not (path / TOKENIZER).exists():
        raise UnusableInput(
            f"{path}: expected {TOKENIZER} beside a model of text, found none; save its tokenizer with transformers "
            "(a fast one)"
        )
    file = inside(path, TOKENIZER)
    if file.stat().st_size > MAX_JSON_BYTES:
        raise UnusableInput(f"{file}: expected at most {MAX_JSON_BYTES} bytes of JSON, came {file.stat().st_size}")
    content = file.read_text(encoding="utf-8", errors="replace")
    tokenizer = tokenizer_of(content)
    tokenizer.no_padding()
    known, wanted = 1 + max(tokenizer.get_vocab().values(), default=-1), settings.get("vocab_size")
    if not isinstance(wanted, int) or known > wanted:
        raise UnusableInput(
            f"{path}: its tokenizer numbers its tokens up to {known - 1} and its model knows {wanted} of them: they do "
            "not match"
        )
    markers = tokenizer.encode("").ids
    if len(markers) != 2:
        raise UnusableInput(
            f"{path}: expected a tokenizer that puts one marker before and one behind each text; came {len(markers)}"
        )
    pad = settings.get("pad_token_id")
    if not isinstance(pad, int) or not 0 <= pad < wanted:
        raise UnusableInput(f"{path}: expected a pad_token_id in its config.json; came {pad!r}")
    most = settings.get("max_position_embeddings")
    if length is not None and isinstance(most, int) and length > most:
        raise UnusableInput(
            f"{path}: expected --shape of at most {most} tokens, as the model was made for; got {length}"
        )
    return TextSpec(
        (length or _length(path, settings),), content, start=markers[0], end=markers[1], pad=pad, vocabulary=known
    )


def _length(path: Path, settings: dict[str, Any]) -> int:
    """The tokens that the model was made for, at most ``LONGEST``."""
    found = [read_json(inside(path, name)).get(key) for name, key in LENGTHS.items() if (path / name).exists()]
    known = [size for size in (*found, settings.get("max_position_embeddings")) if isinstance(size, int) and size > 2]
    return min(LONGEST, *known) if known else LONGEST


def text_pooling(path: Path, said: Pooling | None) -> Pooling:
    """As ``said``, else as the folder's pooling file says; raises UnusableInput where neither does."""
    if said is not None:
        return said
    if not (path / POOLING).exists():
        raise UnusableInput(
            f"{path}: is an encoder of text, and nothing says how its tokens' states become one embedding: give "
            "--pooling mean, cls or pooler, as it was trained"
        )
    settings = read_json(inside(path, POOLING))
    modes = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}
    every = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True]
    chosen = [name for name, key in modes.items() if every == [key] or settings.get("pooling_mode") == name]
    if len(chosen) != 1:
        came = ", ".join(every) or str(settings.get("pooling_mode"))
        raise UnusableInput(f"{path / POOLING}: expected pooling of cls or mean alone, came {came}; give --pooling")
    return "cls" if chosen[0] == "cls" else "mean"
