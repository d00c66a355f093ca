"""State of a module that a call can change."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from torch import Tensor, nn

from assay.nn.module_state import changed_names, runs_foreign_code, state_of


class Holder:
    """An object of a package that assay does not know."""

    calls = 0


class Net(nn.Module):
    def __init__(self, change) -> None:
        super().__init__()
        self.change = change
        self.number, self.numbers, self.nested, self.holder = 0, [0], {"calls": [0]}, Holder()
        self.count, self.random, self.generator = itertools.count(), random.Random(0), torch.Generator()
        self.bytes, self.cycle, self.iterator = bytearray(2), itertools.cycle([0, 1]), iter(range(9))
        self.steps, self.deep, self.long = (i for i in range(9)), [[[[[]]]]], [0] * 100
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.change(self)
        return x + change_of_globals() + Holder.calls


def change_of_globals() -> int:
    return 0


change_of_globals.calls = 0


def replaced_buffer(net: Net) -> None:
    net.calls = net.calls + 1


CHANGES = {
    "number": lambda net: setattr(net, "number", 1),
    "list": lambda net: net.numbers.append(1),
    "nested list": lambda net: net.nested["calls"].append(1),
    "object": lambda net: setattr(net.holder, "calls", 1),
    "new attribute": lambda net: setattr(net, "seen", True),
    "buffer in place": lambda net: net.calls.add_(1),
    "buffer replaced": replaced_buffer,
    "count": lambda net: next(net.count),
    "random numbers of an object": lambda net: net.random.random(),
    "buffer through its data": lambda net: net.calls.data.add_(1),
    "bytes": lambda net: net.bytes.append(1),
    "cycle": lambda net: next(net.cycle),
    "iterator": lambda net: next(net.iterator),
    "generator of Python": lambda net: next(net.steps),
    "deep list": lambda net: net.deep[0][0][0][0].append(1),
    "end of a long list": lambda net: net.long.__setitem__(99, 1),
    "function attribute": lambda net: setattr(change_of_globals, "calls", change_of_globals.calls + 1),
    "class attribute": lambda net: setattr(Holder, "calls", Holder.calls + 1),
    "generator": lambda net: torch.rand(1, generator=net.generator),
}


@pytest.mark.parametrize("name", CHANGES)
def test_change_by_a_call_is_found(name):
    net = Net(CHANGES[name])
    before = state_of(net)
    net(torch.zeros(1))
    assert changed_names(before, state_of(net))


def test_counter_in_a_hook_is_found():
    net, calls = nn.Linear(2, 2), [0]

    def hook(module: nn.Module, args: object) -> None:
        calls.append(1)

    net.register_forward_pre_hook(hook)
    before = state_of(net)
    net(torch.zeros(1, 2))
    assert changed_names(before, state_of(net))


def test_call_without_changes_leaves_equal_states():
    net = Net(lambda net: None)
    before = state_of(net)
    net(torch.zeros(1))
    assert not changed_names(before, state_of(net))


def test_foreign_code_is_a_class_or_a_hook_of_another_package():
    known = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert not runs_foreign_code(known)
    assert runs_foreign_code(nn.Sequential(Net(lambda net: None)))
    known[0].register_forward_pre_hook(lambda module, args: None)
    assert runs_foreign_code(known)
