"""Tests of encoders and their heads."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.tiny import CLASSES, TinyNet, tiny_build
from torch import nn

from assay import formats
from assay.core.errors import UnusableInput
from assay.formats.feature_extractor import to_feature_extractor
from assay.nn.encoders import EncoderClassifier, FeatureExtractor, attach_head

X = torch.rand(3, 3, 8, 8)


def test_classifier_equals_features_and_linear_layer() -> None:
    net = TinyNet().eval()
    features = FeatureExtractor(copy.deepcopy(net))
    with torch.no_grad():
        assert torch.allclose(net.head[1](features(X)), net(X))
        assert torch.equal(copy.deepcopy(features).classifier()(X), net(X))
    assert features(X).shape == (3, features.width)
    assert not any("head" in name for name, _ in features.named_parameters())


def test_dropout_before_the_head_is_removed_and_restored() -> None:
    features = FeatureExtractor(TinyNet()).train()
    assert not any(isinstance(module, nn.Dropout) for module in features.modules())
    assert isinstance(copy.deepcopy(features).classifier().head[0], nn.Dropout)  # type: ignore[union-attr,index]
    new = attach_head(features, 64, 7, seed=0)
    assert isinstance(new.head[0], nn.Identity), "expected no dropout before a new head"  # type: ignore[union-attr,index]


def test_new_head_depends_on_seed_and_replaces_the_old_one() -> None:
    one, same, other = (attach_head(FeatureExtractor(TinyNet()), 64, 7, seed=seed) for seed in (1, 1, 2))
    assert isinstance(one, TinyNet)
    assert torch.equal(one.head[1].weight, same.head[1].weight)
    assert not torch.equal(one.head[1].weight, other.head[1].weight)
    assert one(X).shape == (3, 7)


def test_other_encoders_get_a_head_as_wrapper() -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Tanh())
    classifier = attach_head(encoder, 192, 5, seed=0)
    assert isinstance(classifier, EncoderClassifier)
    assert classifier(X).shape == (3, 5)


def test_feature_extractor_copies_classifier_and_returns_encoder_unchanged() -> None:
    given = tiny_build().artifact
    encoder = to_feature_extractor(given)
    assert (given.num_classes, encoder.num_classes, encoder.class_names) == (CLASSES, None, None)
    assert given.module(X).shape == (3, CLASSES)
    assert to_feature_extractor(encoder) is encoder


def test_model_with_layers_after_the_head_raises() -> None:
    class Squeezed(nn.Module):
        """Ends with a convolution after its only linear layer."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(192, 4), nn.Conv1d(4, 5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x.flatten(1))[:, :, None])[:, :, 0]

    artifact = tiny_build().artifact
    with pytest.raises(UnusableInput, match=r"last step is a linear layer \(first\), got further steps after it"):
        to_feature_extractor(replace(artifact, module=Squeezed()))
    with pytest.raises(UnusableInput, match="without one"):
        to_feature_extractor(replace(artifact, module=nn.Flatten()))
    with pytest.raises(UnusableInput, match="Fix: give the model from which it was made"):
        to_feature_extractor(replace(artifact, differentiable=False, format="onnx"))


def test_hub_model_as_encoder_and_classifier_survives_saving(shared: Path, tmp_path: Path) -> None:
    encoder = formats.load(shared / "models/mobilenet_v2-imagenet", features=True, shape=(3, 64, 64))
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        embeddings = encoder.module(x)
        assert embeddings.shape == (2, 1280)
        loaded = formats.load(formats.save(encoder, tmp_path / "encoder"))
        assert torch.equal(loaded.module(x), embeddings)
        assert (loaded.num_classes, loaded.inputs.shape) == (None, (3, 64, 64))
        classifier = encoder.with_module(attach_head(copy.deepcopy(encoder.module), 1280, 43, seed=0), num_classes=43)
        again = formats.load(formats.save(classifier, tmp_path / "classifier"))
        assert again.num_classes == 43
        assert torch.equal(again.module(x), classifier.module.eval()(x))
