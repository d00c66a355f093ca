"""Models in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.small_nets import small_model
from torch import nn

from assay.core.errors import UnusableInput
from assay.formats import from_module


def test_classes_are_counted_and_modes_kept() -> None:
    model = small_model().train()
    model[1].eval()
    artifact = from_module(model, shape=(3, 8, 8), name="mine")
    assert (artifact.num_classes, artifact.format, artifact.name) == (5, "module", "mine")
    assert artifact.module is model
    assert model[0].training
    assert not model[1].training


def test_batch_norm_statistics_stay_unchanged() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    from_module(model, shape=(3, 2, 2))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_normalization_is_applied_in_front() -> None:
    model = small_model()
    artifact = from_module(model, shape=(3, 8, 8), mean=[0.5] * 3, std=[0.25] * 3)
    x = torch.rand(2, 3, 8, 8)
    assert torch.allclose(artifact.module(x), model((x - 0.5) / 0.25))


def test_class_names_of_another_length_are_ignored() -> None:
    assert from_module(small_model(), shape=(3, 8, 8), class_names="abcde").class_names == tuple("abcde")
    assert from_module(small_model(), shape=(3, 8, 8), class_names="ab").class_names is None


def test_transformers_model_loads_as_its_folder_does(hf_directory: Path) -> None:
    from transformers import ResNetForImageClassification

    from assay import formats

    model = ResNetForImageClassification.from_pretrained(hf_directory)
    artifact, loaded = from_module(model), formats.load(hf_directory)
    x = torch.rand(2, 3, 24, 24)
    assert torch.equal(artifact.module(x), loaded.module(x))
    assert (artifact.inputs, artifact.class_names, artifact.format) == (loaded.inputs, loaded.class_names, "module")


def test_transformers_model_without_a_folder_needs_mean_and_std() -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTModel

    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32)
    with pytest.raises(UnusableInput, match="give mean and std"):
        from_module(ViTForImageClassification(config))
    artifact = from_module(ViTForImageClassification(config), mean=[0.5], std=[0.5])
    assert (artifact.inputs.shape, artifact.num_classes) == ((3, 32, 32), 2)
    with pytest.raises(UnusableInput, match=r"expected|embeddings|ViTModel"):
        from_module(ViTModel(config), mean=[0.5], std=[0.5])


class NanNet(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x), 3), float("nan"))


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (small_model(), None, "shape="),
        (small_model(), (3, 9, 9), "does not run"),
        (nn.Identity(), (3, 8, 8), "expected logits"),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 1)), (3, 8, 8), "K being at least 2"),
        (NanNet(), (3, 8, 8), "NaN"),
    ],
)
def test_unusable_model_is_refused(model: nn.Module, shape: tuple[int, int, int] | None, message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        from_module(model, shape=shape)


def test_wrong_class_count_is_refused() -> None:
    with pytest.raises(UnusableInput, match="expected 4 classes, the model outputs 5"):
        from_module(small_model(), shape=(3, 8, 8), num_classes=4)
