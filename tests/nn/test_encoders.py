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


def test_a_classifier_is_its_features_and_a_linear_layer() -> None:
    net = TinyNet().eval()
    features = FeatureExtractor(copy.deepcopy(net))
    with torch.no_grad():
        assert torch.allclose(net.head[1](features(X)), net(X))
        assert torch.equal(copy.deepcopy(features).classifier()(X), net(X))
    assert features(X).shape == (3, features.width)
    left = {name for name, _ in features.named_parameters()}
    assert not any("head" in name for name in left)


def test_dropout_before_the_last_layer_goes_with_it_and_comes_back_with_it() -> None:
    features = FeatureExtractor(TinyNet()).train()
    assert not any(isinstance(module, nn.Dropout) for module in features.modules())
    assert isinstance(copy.deepcopy(features).classifier().head[0], nn.Dropout)  # type: ignore[union-attr,index]
    fresh = attach_head(features, 64, 7, seed=0)
    assert isinstance(fresh.head[0], nn.Identity), "a layer of one's own has none"  # type: ignore[union-attr,index]


def test_a_fresh_head_depends_on_the_seed_and_stands_in_the_old_place() -> None:
    one, same, other = (attach_head(FeatureExtractor(TinyNet()), 64, 7, seed=seed) for seed in (1, 1, 2))
    assert isinstance(one, TinyNet)
    assert torch.equal(one.head[1].weight, same.head[1].weight)
    assert not torch.equal(one.head[1].weight, other.head[1].weight)
    assert one(X).shape == (3, 7)


def test_other_encoders_get_a_layer_behind_them() -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Tanh())
    headed = attach_head(encoder, 192, 5, seed=0)
    assert isinstance(headed, EncoderClassifier)
    assert headed(X).shape == (3, 5)


def test_cutting_leaves_the_classifier_alone_and_an_encoder_as_it_is() -> None:
    given = tiny_build().artifact
    encoder = to_feature_extractor(given)
    assert (given.num_classes, encoder.num_classes, encoder.class_names) == (CLASSES, None, None)
    assert given.module(X).shape == (3, CLASSES)
    assert to_feature_extractor(encoder) is encoder


def test_what_does_not_end_in_its_last_linear_layer_is_a_clear_error() -> None:
    class Squeezed(nn.Module):
        """Features are made smaller, and logits larger again by a convolution."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(192, 4), nn.Conv1d(4, 5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x.flatten(1))[:, :, None])[:, :, 0]

    artifact = tiny_build().artifact
    with pytest.raises(UnusableInput, match=r"last step is a linear layer \(first\), got further steps after it"):
        to_feature_extractor(replace(artifact, module=Squeezed()))
    with pytest.raises(UnusableInput, match="has none"):
        to_feature_extractor(replace(artifact, module=nn.Flatten()))
    with pytest.raises(UnusableInput, match="does not have: give the model that it was made from"):
        to_feature_extractor(replace(artifact, differentiable=False, format="onnx"))


def test_a_real_hub_model_is_cut_fine_tuned_and_saved(shared: Path, tmp_path: Path) -> None:
    encoder = formats.load(shared / "models/mobilenet_v2-imagenet", features=True, shape=(3, 64, 64))
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        embeddings = encoder.module(x)
        assert embeddings.shape == (2, 1280)
        kept = formats.load(formats.save(encoder, tmp_path / "encoder"))
        assert torch.equal(kept.module(x), embeddings)
        assert (kept.num_classes, kept.inputs.shape) == (None, (3, 64, 64))
        classifier = encoder.with_module(attach_head(copy.deepcopy(encoder.module), 1280, 43, seed=0), num_classes=43)
        again = formats.load(formats.save(classifier, tmp_path / "classifier"))
        assert again.num_classes == 43
        assert torch.equal(again.module(x), classifier.module.eval()(x))
