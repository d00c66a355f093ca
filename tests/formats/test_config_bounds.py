"""Numbers of a config against its weights, and the vision tower of a model of two towers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from assay import formats
from assay.core.errors import UnusableInput
from assay.formats.huggingface.bounds import refuse_large_numbers
from assay.formats.huggingface.towers import select_tower

TENSORS = {"a": torch.zeros(4, 8), "b": torch.zeros(8)}


@pytest.mark.parametrize(
    "settings",
    [
        {"num_labels": 10**9},
        {"num_hidden_layers": 10**6},
        {"depths": [2, 10**6]},
        {"text_config": {"vocab_size": 10**12}},
        {"max_position_embeddings": 10**10},
    ],
)
def test_number_beyond_the_weights_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UnusableInput, match="Fix: give the config of these weights"):
        refuse_large_numbers(settings, TENSORS, "m")


def test_ordinary_numbers_pass() -> None:
    settings = {
        "num_labels": 8, "num_hidden_layers": 12, "max_position_embeddings": 131072, "eos_token_id": 10**9,
        "hidden_size": 4096, "rope_theta": 10**8, "id2label": {"0": "a"}, "use_cache": True, "depths": [2, 2, 18, 2],
    }  # fmt: skip
    refuse_large_numbers(settings, TENSORS, "m")


def test_vision_tower_of_clip_is_an_image_encoder(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**sizes, "vocab_size": 50, "max_position_embeddings": 8},
        vision_config={**sizes, "image_size": 8, "patch_size": 4},
        projection_dim=4,
    )
    model = CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": 8, "width": 8}, "do_center_crop": False, "image_mean": [0.0] * 3,
                    "image_std": [1.0] * 3})
    )  # fmt: skip
    found = formats.load(tmp_path)
    assert found.num_classes is None
    assert "vision tower of CLIPModel" in found.notes[0]
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(found.module(x), model.vision_model(pixel_values=x).pooler_output)


def test_unknown_towers_are_refused() -> None:
    config = {"model_type": "new", "architectures": ["NewModel"], "text_config": {}, "vision_config": {}}
    with pytest.raises(UnusableInput, match="save its vision tower alone"):
        select_tower(config, TENSORS, "m")
