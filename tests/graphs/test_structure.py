"""Tests of the key that models share if they differ in their weights only."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from support.tiny import tiny_net
from torch import nn

from assay.graphs.structure import structure_of


class Scaled(nn.Module):
    """A layer with attributes of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.table = torch.arange(3.0)
        self.options: dict[str, object] = {"factors": [1.0, 2.0], "activation": torch.relu}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * self.table


def _tie(net: Scaled) -> None:
    net.second.weight = net.layer.weight


def _transpose(net: Scaled) -> None:
    net.layer.weight = nn.Parameter(net.layer.weight.data.t().contiguous().t())


CHANGES: dict[str, Callable[[Scaled], object]] = {
    "a number in a list": lambda net: net.options.update(factors=[1.0, 3.0]),
    "a whole number in place of a float": lambda net: net.options.update(factors=[1, 2.0]),
    "a function": lambda net: net.options.update(activation=torch.sigmoid),
    "a new attribute": lambda net: setattr(net, "more", True),
    "a tensor that is no weight": lambda net: net.table.mul_(2),
    "the class of a layer": lambda net: setattr(net, "layer", nn.Bilinear(3, 3, 3)),
    "the shape of a weight": lambda net: setattr(net, "layer", nn.Linear(4, 3)),
    "the type of a weight": lambda net: net.layer.double(),
    "the layout of a weight": _transpose,
    "a shared weight": _tie,
    "no bias": lambda net: net.layer.register_parameter("bias", None),
    "training mode": lambda net: net.train(),
    "a hook": lambda net: net.layer.register_forward_hook(lambda *_: None),
}


def test_models_with_other_weights_have_the_same_structure() -> None:
    one, other = tiny_net(0), tiny_net(1)
    assert structure_of(one) is not None
    assert structure_of(one) == structure_of(other) == structure_of(copy.deepcopy(one))
    assert structure_of(Scaled()) == structure_of(copy.deepcopy(Scaled()))


@pytest.mark.parametrize("change", CHANGES)
def test_another_attribute_is_another_structure(change: str) -> None:
    net = Scaled().eval()
    changed = copy.deepcopy(net)
    CHANGES[change](changed)
    assert structure_of(changed) is not None
    assert structure_of(changed) != structure_of(net)


def test_objects_of_compiled_code_have_no_structure() -> None:
    net = Scaled()
    net.options["counter"] = itertools.count()
    assert structure_of(net) is None


def test_objects_that_refer_to_each_other_are_read_once() -> None:
    one, other = Scaled(), Scaled()
    for net in (one, other):
        net.options["itself"] = net.options
    assert structure_of(one) == structure_of(other)
