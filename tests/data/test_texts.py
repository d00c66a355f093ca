"""Texts as data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.texts import tokenizer_json, write_data

from assay import data
from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec, TextSpec

SPEC = TextSpec((6,), tokenizer_json(), start=2, end=3, pad=0, vocabulary=14)


def test_a_column_of_texts_becomes_token_numbers(tmp_path: Path) -> None:
    task = data.load(write_data(tmp_path / "texts", column="sentence"), SPEC, limit=40)
    assert task.class_names == ("cat", "dog", "bird")
    train = task.split("train")
    assert train.x.shape == (40, 6)
    assert train.x.dtype == torch.int64
    assert train.y is not None
    assert torch.equal(train.x[:, 2] - 7, train.y), "the animal is the second word"
    assert task.notes == ()


def test_longer_texts_are_cut_and_counted(tmp_path: Path) -> None:
    task = data.load(write_data(tmp_path / "texts"), TextSpec((4,), SPEC.tokenizer, 2, 3, 0, 14))
    assert task.notes == ("240 texts are longer than 4 tokens and were cut there",)
    assert (task.split("test").x[:, -1] == 3).all()


def test_texts_are_for_models_of_text(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match=r"expected a column of pictures .*, as the model takes image; came text"):
        data.load(write_data(tmp_path / "texts"), ImageSpec((3, 8, 8)))


def test_models_of_text_take_no_pictures(tmp_path: Path) -> None:
    np.savez(tmp_path / "pictures.npz", x=np.zeros((9, 8, 8, 3), np.uint8))
    for source in (None, "signs", "digits", tmp_path / "pictures.npz", tmp_path / "nowhere", tmp_path):
        with pytest.raises(UnusableInput, match="expected texts for a model of text, as a parquet file"):
            data.load(source, SPEC)


def test_a_row_without_text_is_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["red", None, "dog"], "label": [0, 1, 0]}), tmp_path / "train.parquet")
    with pytest.raises(UnusableInput, match="row 1 holds no text; expected one in 'text'"):
        data.load(tmp_path / "train.parquet", SPEC)
