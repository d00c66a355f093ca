"""Tests of ``LayerOutput``."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.nn.layer_output import LayerOutput


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        self.weights = nn.Identity()
        self.unused, self.pair = nn.Conv2d(3, 4, 3), nn.LSTM(5, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(self.first(x)).mean((2, 3))
        return self.pair(out[:, None])[0][:, 0]


X = torch.rand(2, 3, 8, 8)


def test_layer_output_matches_layer_and_leaves_no_hook() -> None:
    model = nn.Sequential(Body())
    for layer in ("second", "0.second"):
        wrapped = copy.deepcopy(LayerOutput(model, layer))
        assert torch.equal(wrapped(X), model[0].second(model[0].first(X)).flatten(1))
        assert not any(module._forward_hooks for module in wrapped.modules())
    assert {id(p) for p in LayerOutput(model, "first").parameters()} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("third", "got third, which matches no layer. Fix: give a full name such as 0.unused"),
        ("econd", "matches no layer"),
        ("weights", "matches 2 layers: 0.weights, 1.weights"),
    ],
)
def test_missing_or_ambiguous_layer_raises(layer: str, message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        LayerOutput(nn.Sequential(Body(), nn.ModuleDict({"weights": nn.ReLU()})), layer)


@pytest.mark.parametrize("layer", ["unused", "pair"])
def test_layer_without_one_tensor_per_sample_raises(layer: str) -> None:
    with pytest.raises(UnusableInput, match="expected a layer with one output tensor per sample"):
        LayerOutput(Body(), layer)(X)
