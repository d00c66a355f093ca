"""Small models of every format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    """A bare safetensors file of a resnet8-cifar with seven classes."""
    from assay.nn.architectures import ARCHITECTURES

    torch.manual_seed(0)
    path = tmp_path / "bare.safetensors"
    save_file(ARCHITECTURES["resnet8-cifar"].build(7).state_dict(), path)
    return path


@pytest.fixture
def hf_directory(tmp_path: Path) -> Path:
    """A tiny ResNet in Hugging Face's layout: 4 classes, 24 pixels."""
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        id2label={0: "cat", 1: "dog", 2: "cow", 3: "hen"},
        label2id={"cat": 0, "dog": 1, "cow": 2, "hen": 3},
    )
    folder = tmp_path / "hf"
    ResNetForImageClassification(config).save_pretrained(folder)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": 24, "width": 24},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.2, 0.25],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder
