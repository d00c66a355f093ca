"""A layer inside a net as what it answers with."""

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


def test_it_answers_with_the_layers_map_and_leaves_no_hook() -> None:
    net = nn.Sequential(Body())
    for layer in ("second", "0.second"):
        inside = copy.deepcopy(LayerOutput(net, layer))
        assert torch.equal(inside(X), net[0].second(net[0].first(X)).flatten(1))
        assert not any(module._forward_hooks for module in inside.modules())
    assert {id(p) for p in LayerOutput(net, "first").parameters()} == {id(p) for p in net.parameters()}


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("third", "such as 0.unused; third: there are none of that name"),
        ("econd", "none of that name"),
        ("weights", "2 of that name: 0.weights, 1.weights"),
    ],
)
def test_a_layer_that_is_not_there_or_not_alone_is_refused(layer: str, said: str) -> None:
    with pytest.raises(UnusableInput, match=said):
        LayerOutput(nn.Sequential(Body(), nn.ModuleDict({"weights": nn.ReLU()})), layer)


@pytest.mark.parametrize("layer", ["unused", "pair"])
def test_a_layer_without_one_tensor_a_sample_is_refused(layer: str) -> None:
    with pytest.raises(UnusableInput, match="gives one tensor a sample"):
        LayerOutput(Body(), layer)(X)
