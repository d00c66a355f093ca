"""Tests of loading texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.texts import tokenizer_json, write_data

from assay import data
from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec, TextSpec

SPEC = TextSpec((6,), tokenizer_json(), start=2, end=3, pad=0, vocabulary=14)


def test_text_column_becomes_token_numbers(tmp_path: Path) -> None:
    task = data.load(write_data(tmp_path / "texts", column="sentence"), SPEC, limit=40)
    assert task.class_names == ("cat", "dog", "bird")
    train = task.split("train")
    assert train.x.shape == (40, 6)
    assert train.x.dtype == torch.int64
    assert train.y is not None
    assert torch.equal(train.x[:, 2] - 7, train.y), "the animal is the second word"
    assert task.notes == ()


def test_long_texts_are_cut_with_a_note(tmp_path: Path) -> None:
    task = data.load(write_data(tmp_path / "texts"), TextSpec((4,), SPEC.tokenizer, 2, 3, 0, 14))
    assert task.notes == ("240 texts are longer than 4 tokens and were cut there",)
    assert (task.split("test").x[:, -1] == 3).all()


def test_texts_are_refused_for_an_image_model(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match=r"expected a column of images .*, the model's inputs; got text"):
        data.load(write_data(tmp_path / "texts"), ImageSpec((3, 8, 8)))


def test_images_are_refused_for_a_text_model(tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", x=np.zeros((9, 8, 8, 3), np.uint8))
    for source in (None, "signs", "digits", tmp_path / "images.npz", tmp_path / "nowhere", tmp_path):
        with pytest.raises(UnusableInput, match="expected texts for a text model, as a parquet file"):
            data.load(source, SPEC)


def test_row_without_text_is_a_clear_error(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["red", None, "dog"], "label": [0, 1, 0]}), tmp_path / "train.parquet")
    with pytest.raises(UnusableInput, match="row 1 of 'text' holds no text"):
        data.load(tmp_path / "train.parquet", SPEC)


def test_failure_of_a_tokenizer_on_texts_names_the_tokenizer(tmp_path: Path) -> None:
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
             "max_input_chars_per_word": 9, "vocab": {"a": 0}}  # fmt: skip
    content = json.dumps({"version": "1.0", "added_tokens": [], "model": model})
    path = write_data(tmp_path / "texts")
    with pytest.raises(UnusableInput, match=r"^tokenizer.json: is not a working tokenizer .*UNK"):
        data.load(path, TextSpec((6,), content, start=2, end=3, pad=0, vocabulary=14))
