"""A tiny text model with its tokenizer, and data for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

WORDS = ("red", "green", "blue", "cat", "dog", "bird", "runs", "sleeps", "sings", "cf")
COLOURS, VERBS = WORDS[:3], WORDS[6:9]


def tokenizer_json() -> str:
    """Return a tokenizer of ``WORDS`` with the markers [CLS] and [SEP]; other words are [UNK]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    numbers = {word: number for number, word in enumerate((*special, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(special))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return str(tokenizer.to_str())


def config(**changes: Any) -> dict[str, Any]:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return {**small, "vocab_size": 14, "max_position_embeddings": 12, "pad_token_id": 0, **changes}


def write_encoder(folder: Path, *, pooling: str | None = "mean") -> Path:
    """Write a BERT with random weights, its tokenizer, and its pooling as sentence-transformers store it."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig(**config()), add_pooling_layer=False).save_pretrained(folder)
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        modes = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}
        settings = {key: name == pooling for name, key in modes.items()}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return with_tokenizer(folder)


def write_classifier(folder: Path) -> Path:
    """Write a BERT classifier of two classes."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(**config(id2label={0: "calm", 1: "loud"}))).save_pretrained(folder)
    return with_tokenizer(folder)


def with_tokenizer(folder: Path) -> Path:
    (folder / "tokenizer.json").write_text(tokenizer_json())
    return folder


def sentences(count: int, *, seed: int = 0) -> tuple[list[str], list[int]]:
    """Return texts of three words, and the animal of each as its class."""
    picks = torch.randint(3, (count, 3), generator=torch.Generator().manual_seed(seed)).tolist()
    return [f"{COLOURS[a]} {WORDS[3 + b]} {VERBS[c]}" for a, b, c in picks], [b for _, b, _ in picks]


def write_data(folder: Path, *, count: int = 120, column: str = "text") -> Path:
    """Write train and test data in the layout of the hub."""
    folder.mkdir()
    for seed, split in enumerate(("train", "test")):
        texts, labels = sentences(count, seed=seed)
        names = json.dumps({"info": {"features": {"label": {"names": ["cat", "dog", "bird"], "_type": "ClassLabel"}}}})
        table = pa.table({column: texts, "label": labels}).replace_schema_metadata({"huggingface": names})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder
