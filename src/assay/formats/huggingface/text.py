"""Inputs and pooling of text models: their tokenizer, length and sentence embedding.

The library ``tokenizers`` reads ``tokenizer.json``, without code of the model. The file
``1_Pooling/config.json``, as written by sentence-transformers, states the pooling of an encoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay.core.errors import UnusableInput
from assay.core.model import TextSpec
from assay.data.tokenize import load_tokenizer
from assay.formats.huggingface.pooling import Pooling
from assay.io.files import any_json, inside, read_json, refuse_long_json

TOKENIZER = "tokenizer.json"
POOLING = "1_Pooling/config.json"
MODULES = "modules.json"
# Modules of sentence-transformers that assay runs, or that change no direction of an embedding.
SUPPORTED_MODULES = ("Transformer", "Pooling", "Normalize")
PADS = ("[PAD]", "<pad>")
MIN_KNOWN_TOKENS = 0.9  # fraction of the model's tokens in its tokenizer; some models have a few spare ones
LENGTHS = {"sentence_bert_config.json": "max_seq_length", "tokenizer_config.json": "model_max_length"}
DEFAULT_MAX_LENGTH = 512  # tokens, unless the user gives a length


def read_text_spec(path: Path, settings: dict[str, Any], length: int | None) -> TextSpec:
    """Return the conversion of texts into inputs of the model in a folder.

    Args:
        path: The folder.
        settings: The model's config.
        length: Tokens. None: as many as the model was made for, at most 512.

    Raises:
        UnusableInput: The folder has no tokenizer, or another model's.
    """
    content = _read_tokenizer(path)
    tokenizer = load_tokenizer(content)
    tokenizer.no_padding()
    known, (start, end) = _check_tokenizer(tokenizer, settings, path)
    pads = [number for name in PADS if (number := tokenizer.token_to_id(name)) is not None]
    pad = pads[0] if pads else settings.get("pad_token_id")  # if they differ, the tokenizer's is the one in use
    if not isinstance(pad, int) or not 0 <= pad < settings["vocab_size"]:
        raise UnusableInput(f"{path}: expected a pad_token_id in its config.json; got {pad!r}")
    most = settings.get("max_position_embeddings")
    if length is not None and isinstance(most, int) and length > most:
        raise UnusableInput(f"{path}: expected a shape of at most {most} tokens, the model's maximum; got {length}")
    return TextSpec((length or _length(path, settings),), content, start=start, end=end, pad=pad, vocabulary=known)


def _read_tokenizer(path: Path) -> str:
    if not (path / TOKENIZER).exists():
        raise UnusableInput(
            f"{path}: expected {TOKENIZER} for a text model, found none. "
            "Fix: save its tokenizer with transformers (a fast one)."
        )
    file = inside(path, TOKENIZER)
    refuse_long_json(file)
    return file.read_text(encoding="utf-8", errors="replace")


def _check_tokenizer(tokenizer: Any, settings: dict[str, Any], path: Path) -> tuple[int, tuple[int, int]]:
    """Return the number of tokens in a tokenizer, and its markers before and after a text.

    Words with other numbers in a vocabulary of the same size stay unnoticed.

    Raises:
        UnusableInput: The tokenizer does not belong to the model.
    """
    known, wanted = 1 + max(tokenizer.get_vocab().values(), default=-1), settings.get("vocab_size")
    if not isinstance(wanted, int) or known > wanted:
        raise UnusableInput(
            f"{path}: its tokenizer numbers its tokens up to {known - 1} and its model knows {wanted} of them: they do "
            "not match"
        )
    if known < MIN_KNOWN_TOKENS * wanted:
        raise UnusableInput(
            f"{path}: its tokenizer knows {known} tokens and its model {wanted}: they do not match. "
            "Fix: save the model with its own tokenizer."
        )
    markers = tokenizer.encode("").ids
    if len(markers) != 2:
        raise UnusableInput(
            f"{path}: expected a tokenizer that puts one marker before and one behind each text; got {len(markers)}"
        )
    expected = [settings.get(f"{name}_token_id") for name in ("bos", "eos")]
    if all(isinstance(token, int) for token in expected) and markers != expected:
        raise UnusableInput(
            f"{path}: its tokenizer marks a text by tokens {markers[0]} and {markers[1]} and its model by "
            f"{expected[0]} and {expected[1]}: they do not match"
        )
    return known, (markers[0], markers[1])


def _length(path: Path, settings: dict[str, Any]) -> int:
    """Return the model's maximum number of tokens, at most ``DEFAULT_MAX_LENGTH``."""
    found = [read_json(inside(path, name)).get(key) for name, key in LENGTHS.items() if (path / name).exists()]
    known = [size for size in (*found, settings.get("max_position_embeddings")) if isinstance(size, int) and size > 2]
    return min(DEFAULT_MAX_LENGTH, *known) if known else DEFAULT_MAX_LENGTH


def read_text_pooling(path: Path, given: Pooling | None) -> Pooling:
    """Return the pooling of a text encoder: the given one, else the one in the folder's pooling file.

    Args:
        path: The folder of the encoder.
        given: Pooling of the user.

    Raises:
        UnusableInput: No pooling is known, or the folder names further modules after the pooling. Assay does not run
            these, so the embeddings would be others.
    """
    if (path / MODULES).exists():
        kinds = [str(module.get("type")).rpartition(".")[2] for module in _read_modules(inside(path, MODULES))]
        if more := [kind for kind in kinds if kind not in SUPPORTED_MODULES]:
            raise UnusableInput(
                f"{path / MODULES}: names a module {more[0]}, which is not run here, so the embeddings would differ "
                "from the deployed ones. Fix: give an encoder without it."
            )
    if given is not None:
        return given
    if not (path / POOLING).exists():
        raise UnusableInput(
            f"{path}: is a text encoder, and no file states its pooling. "
            "Fix: give the pooling of its training: mean, cls or pooler."
        )
    settings = read_json(inside(path, POOLING))
    modes: dict[Pooling, str] = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}
    active = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True]
    chosen = [name for name, key in modes.items() if active == [key] or settings.get("pooling_mode") == name]
    if len(chosen) != 1:
        found = ", ".join(active) or str(settings.get("pooling_mode"))
        raise UnusableInput(
            f"{path / POOLING}: expected pooling of cls or mean alone, got {found}. Fix: give the pooling."
        )
    return chosen[0]


def _read_modules(file: Path) -> list[dict[str, Any]]:
    found = any_json(file)
    if not isinstance(found, list) or not all(isinstance(module, dict) for module in found):
        raise UnusableInput(f"{file}: expected a list of modules of sentence-transformers")
    return found
