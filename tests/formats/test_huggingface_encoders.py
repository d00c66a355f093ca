"""Encoders in Hugging Face's layout, with their own pooling or the user's."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from assay import formats
from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.formats.feature_extractor import to_feature_extractor
from assay.nn.encoders import attach_head

X = torch.rand(2, 3, 24, 24)
PROCESSOR = {"image_processor_type": "ViTImageProcessor", "size": {"height": 24, "width": 24}, "image_mean": [0.5] * 3}


def write(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "image_std": [0.25] * 3}))
    return folder


@pytest.fixture
def resnet(tmp_path: Path) -> Path:
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return write(ResNetModel(config), tmp_path / "resnet")


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    """Return an encoder without a pooling layer."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=24,
        patch_size=8,
    )
    return write(ViTModel(config, add_pooling_layer=False), tmp_path / "vit")


def embed(artifact: Artifact) -> Tensor:
    with torch.no_grad():
        return artifact.module(X)


def test_pooling_of_the_model_is_the_default(resnet: Path) -> None:
    artifact = formats.load(resnet)
    assert (artifact.num_classes, artifact.class_names, artifact.format) == (None, None, "huggingface")
    assert embed(artifact).shape == (2, 16)
    with torch.no_grad():
        own = artifact.module.net.model(pixel_values=(X - 0.5) / 0.25)  # type: ignore[union-attr,operator]
    assert torch.allclose(embed(artifact), own.pooler_output.flatten(1))
    assert torch.allclose(embed(formats.load(resnet, pooling="mean")), own.last_hidden_state.mean((2, 3)))


def test_encoder_without_pooling_needs_the_option(vit: Path) -> None:
    with pytest.raises(UnusableInput, match=r"does not pool its 10 tokens.*Fix: give the pooling .* cls or mean"):
        formats.load(vit)
    cls, mean = (formats.load(vit, pooling=pooling) for pooling in ("cls", "mean"))
    with torch.no_grad():
        states = cls.module.net.model(pixel_values=(X - 0.5) / 0.25).last_hidden_state  # type: ignore[union-attr,operator]
    assert torch.allclose(embed(cls), states[:, 0])
    assert torch.allclose(embed(mean), states.mean(1), atol=1e-6)
    with pytest.raises(UnusableInput, match="has no output for the pooling pooler"):
        formats.load(vit, pooling="pooler")
    with pytest.raises(UnusableInput, match="expected a pooling of pooler, cls, mean; got 'max'"):
        formats.load(vit, pooling="max")


def test_saved_encoder_loads_alone_and_with_a_last_layer(vit: Path, tmp_path: Path) -> None:
    encoder = formats.load(vit, pooling="cls")
    again = formats.load(formats.save(encoder, tmp_path / "alone", planted="transtroj"))
    assert (again.num_classes, again.planted) == (None, "transtroj")
    assert torch.equal(embed(again), embed(encoder))
    model = attach_head(copy.deepcopy(encoder.module), 16, 5, seed=0)
    classifier = encoder.with_module(model.eval(), num_classes=5, class_names=tuple("abcde"))
    headed = formats.load(formats.save(classifier, tmp_path / "headed"))
    assert (headed.num_classes, headed.class_names) == (5, tuple("abcde"))
    assert torch.equal(embed(headed), embed(classifier))
    features = to_feature_extractor(headed)
    kept = formats.load(formats.save(features, tmp_path / "cut"))
    assert kept.num_classes is None
    assert torch.equal(embed(kept), embed(features))


def test_damaged_last_layer_is_refused(vit: Path, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    encoder = formats.load(vit, pooling="cls")
    classifier = encoder.with_module(attach_head(copy.deepcopy(encoder.module), 16, 5, seed=0).eval(), num_classes=5)
    path = formats.save(classifier, tmp_path / "headed")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    save_file({**tensors, "assay.head.bias": torch.zeros(3)}, path, metadata)
    with pytest.raises(UnusableInput, match="a last layer of weights"):
        formats.load(path)
    save_file({name: tensor for name, tensor in tensors.items() if name != "assay.head.bias"}, path, metadata)
    with pytest.raises(UnusableInput, match="a last layer of weights"):
        formats.load(path)
    save_file(tensors, path, {name: text for name, text in metadata.items() if name != "assay.pooling"})
    with pytest.raises(UnusableInput, match=r"expected metadata assay\.pooling for an encoder"):
        formats.load(path)
    save_file(tensors, path, {**metadata, "assay.config": "[1]"})
    with pytest.raises(UnusableInput, match="as a JSON object"):
        formats.load(path)
    save_file({**tensors, "assay.head.weight": torch.zeros(5, 9)}, path, metadata)
    with pytest.raises(UnusableInput, match="does not run on an image"):
        formats.load(path)
