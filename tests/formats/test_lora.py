"""LoRA adapters, merged in memory with their base model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from assay import formats
from assay.auditing.config import AuditConfig
from assay.auditing.run import load
from assay.core.errors import UnusableInput
from assay.core.options import ModelOptions

SETTINGS = {
    "peft_type": "LORA",
    "base_model_name_or_path": "owner/base",
    "r": 2,
    "lora_alpha": 6,
    "target_modules": ["query"],
    "bias": "none",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ViTConfig, ViTForImageClassification

    folder = tmp_path_factory.mktemp("base")
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4,
        num_labels=3,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": 8, "width": 8}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    )
    return folder


def layer_of(base: Path) -> str:
    """Return the stored name of the query layer; it differs between versions of transformers."""
    names = load_file(base / "model.safetensors")
    return next(name.removesuffix(".weight") for name in names if name.endswith(("query.weight", "q_proj.weight")))


def adapter(folder: Path, base: Path, settings: dict[str, Any] | None = None, **extra: Tensor) -> Path:
    folder.mkdir(exist_ok=True)
    layer = layer_of(base)
    stated = {**SETTINGS, "target_modules": [layer.rpartition(".")[2]], **(settings or {})}
    (folder / "adapter_config.json").write_text(json.dumps(stated))
    torch.manual_seed(0)
    prefix = f"base_model.model.{layer}"
    tensors = {f"{prefix}.lora_A.weight": torch.randn(2, 8), f"{prefix}.lora_B.weight": torch.randn(8, 2)}
    save_file({**tensors, **extra}, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(("settings", "scale"), [({}, 3.0), ({"use_rslora": True}, 6 / 2**0.5)])
def test_factors_are_added_to_the_base_weight(
    tmp_path: Path, base: Path, settings: dict[str, Any], scale: float
) -> None:
    made = adapter(tmp_path / "adapter", base, settings)
    factors = list(load_file(made / "adapter_model.safetensors").values())
    expected = load_file(base / "model.safetensors")
    expected[f"{layer_of(base)}.weight"] += scale * factors[1] @ factors[0]
    merged = tmp_path / "merged"
    merged.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (merged / name).write_text((base / name).read_text())
    save_file(expected, merged / "model.safetensors")
    found, wanted = formats.load(made, base=base), formats.load(merged)
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(found.module(x), wanted.module(x), rtol=1e-4, atol=1e-5)
    assert "merged in memory" in found.notes[0]
    assert "'owner/base'" in found.notes[0]
    assert found.digest != wanted.digest


def test_saved_last_layer_replaces_the_one_of_the_base(tmp_path: Path, base: Path) -> None:
    head = {
        "base_model.model.classifier.weight": torch.randn(5, 8),
        "base_model.model.classifier.bias": torch.randn(5),
    }
    made = adapter(tmp_path, base, {"modules_to_save": ["classifier"]}, **head)
    assert formats.load(made, base=base).num_classes == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"rank_pattern": {"query": 1}}, "rank_pattern"),
        ({"alpha_pattern": {"query": 1}}, "alpha_pattern"),
        ({"bias": "all"}, "bias = all"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = pissa"),
        ({"a_new_setting": 1}, "a_new_setting"),
        ({"r": 3}, "factors of rank 3"),
        ({"r": 0}, "a rank r"),
        ({"target_modules": ".*query"}, "a list of names as target_modules"),
        ({"target_modules": ["other"]}, "expected tensors of target_modules"),
    ],
)
def test_other_than_plain_lora_is_refused_by_name(
    tmp_path: Path, base: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnusableInput, match=message):
        formats.load(adapter(tmp_path, base, settings), base=base)


@pytest.mark.parametrize("name", ["vit.embeddings.lora_embedding_A", "classifier.weight", "other.lora_A.weight"])
def test_tensor_without_a_place_is_refused(tmp_path: Path, base: Path, name: str) -> None:
    extra = {f"base_model.model.{name}": torch.zeros(2, 8)}
    with pytest.raises(UnusableInput, match=name.partition(".")[0]):
        formats.load(adapter(tmp_path, base, **extra), base=base)


def test_base_that_no_audit_can_use_is_refused(tmp_path: Path, base: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "problem_type": "multi_label_classification"}))
    with pytest.raises(UnusableInput, match="multi-label"):
        formats.load(adapter(tmp_path / "adapter", base), base=other)


def test_adapter_without_a_base_and_base_without_an_adapter_are_refused(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UnusableInput, match="give its base model as the reference"):
        formats.load(adapter(tmp_path, base))
    with pytest.raises(UnusableInput, match="expected no base model"):
        formats.load(base, base=base)


def test_settings_of_a_reference_are_refused_for_the_base_model(base: Path, tmp_path: Path) -> None:
    config = AuditConfig(reference=str(base), reference_pooling="mean")
    with pytest.raises(UnusableInput, match="expected no reference_pooling, as the reference is the base model"):
        load(str(adapter(tmp_path / "adapter", base)), ModelOptions(), config)
