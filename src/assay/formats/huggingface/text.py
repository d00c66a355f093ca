"""Text classifiers and text encoders of transformers, with their tokenizer and their pooling.

Only ``tokenizer.json`` is read of a tokenizer, by the library ``tokenizers``, which runs no code of the model's. How an
encoder's states become one embedding stands in ``1_Pooling/config.json``, as sentence-transformers write it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.core.model import TextSpec
from assay.data.tokenize import load_tokenizer
from assay.formats.huggingface.pooling import Pooling
from assay.io.files import any_json, inside, read_json, refuse_long_json

INPUT = "input_ids"
"""What transformers calls the main input of a model that takes text."""

TOKENIZER = "tokenizer.json"
POOLING = "1_Pooling/config.json"
MODULES = "modules.json"
RUN = ("Transformer", "Pooling", "Normalize")
"""What of sentence-transformers is run, or changes no direction of an embedding."""
PADS = ("[PAD]", "<pad>")
KNOWS = 0.9
"""Of a model's tokens, that a tokenizer has to know to be the model's; some models have room for a few more."""
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
    content = _tokenizer_in(path)
    tokenizer = load_tokenizer(content)
    tokenizer.no_padding()
    known, markers = _matching(tokenizer, settings, path)
    pads = [number for name in PADS if (number := tokenizer.token_to_id(name)) is not None]
    pad = pads[0] if pads else settings.get("pad_token_id")  # they may differ: the tokenizer's is the one that is used
    if not isinstance(pad, int) or not 0 <= pad < settings["vocab_size"]:
        raise UnusableInput(f"{path}: expected a pad_token_id in its config.json; came {pad!r}")
    most = settings.get("max_position_embeddings")
    if length is not None and isinstance(most, int) and length > most:
        raise UnusableInput(
            f"{path}: expected --shape of at most {most} tokens, as the model was made for; got {length}"
        )
    start, end = markers
    return TextSpec((length or _length(path, settings),), content, start=start, end=end, pad=pad, vocabulary=known)


def _tokenizer_in(path: Path) -> str:
    if not (path / TOKENIZER).exists():
        raise UnusableInput(
            f"{path}: expected {TOKENIZER} beside a model of text, found none; save its tokenizer with transformers "
            "(a fast one)"
        )
    file = inside(path, TOKENIZER)
    refuse_long_json(file)
    return file.read_text(encoding="utf-8", errors="replace")


def _matching(tokenizer: Any, settings: dict[str, Any], path: Path) -> tuple[int, list[int]]:
    """How many tokens the tokenizer knows, and the two that it marks a text by.

    Raises UnusableInput where it is not that of the model whose config is ``settings``, as far as one can tell: words
    that are numbered otherwise in a vocabulary of the same size are not seen.
    """
    known, wanted = 1 + max(tokenizer.get_vocab().values(), default=-1), settings.get("vocab_size")
    if not isinstance(wanted, int) or known > wanted:
        raise UnusableInput(
            f"{path}: its tokenizer numbers its tokens up to {known - 1} and its model knows {wanted} of them: they do "
            "not match"
        )
    if known < KNOWS * wanted:
        raise UnusableInput(
            f"{path}: its tokenizer knows {known} tokens and its model {wanted}: they do not match; save the model "
            "with its own tokenizer"
        )
    markers = tokenizer.encode("").ids
    if len(markers) != 2:
        raise UnusableInput(
            f"{path}: expected a tokenizer that puts one marker before and one behind each text; came {len(markers)}"
        )
    said = [settings.get(f"{name}_token_id") for name in ("bos", "eos")]
    if all(isinstance(token, int) for token in said) and markers != said:
        raise UnusableInput(
            f"{path}: its tokenizer marks a text by tokens {markers[0]} and {markers[1]} and its model by {said[0]} "
            f"and {said[1]}: they do not match"
        )
    return known, markers


def _length(path: Path, settings: dict[str, Any]) -> int:
    """The tokens that the model was made for, at most ``LONGEST``."""
    found = [read_json(inside(path, name)).get(key) for name, key in LENGTHS.items() if (path / name).exists()]
    known = [size for size in (*found, settings.get("max_position_embeddings")) if isinstance(size, int) and size > 2]
    return min(LONGEST, *known) if known else LONGEST


def _modules(file: Path) -> list[dict[str, Any]]:
    found = any_json(file)
    if not isinstance(found, list) or not all(isinstance(module, dict) for module in found):
        raise UnusableInput(f"{file}: expected a list of modules, as sentence-transformers write it")
    return found


def text_pooling(path: Path, said: Pooling | None) -> Pooling:
    """As ``said``, else as the folder's pooling file says; raises UnusableInput where neither does.

    And where the folder names modules behind the pooling that are not run: its embeddings would be others.
    """
    if (path / MODULES).exists():
        kinds = [str(module.get("type")).rpartition(".")[2] for module in _modules(inside(path, MODULES))]
        if more := [kind for kind in kinds if kind not in RUN]:
            raise UnusableInput(
                f"{path / MODULES}: names a module {more[0]}, which is not run here, so that the embeddings would not "
                "be those that are deployed: give an encoder without it"
            )
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
