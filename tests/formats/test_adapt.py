"""Nets in memory that are not float32 on the CPU, or that answer with more than their logits."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
from support.small_nets import small_net
from torch import Tensor, nn

from assay import formats
from assay.core.errors import UnusableInput
from assay.formats import from_module
from assay.formats.adapt import LogitsOnly
from assay.nn.architectures import Normalized

SHAPE = (3, 8, 8)
Outputs = namedtuple("Outputs", "logits aux")


class Says(nn.Module):
    """A small net whose answer is made of its logits."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.net = small_net()
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(self.net(x), x)


class Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


CLEAR = {
    "dict": lambda y, x: {"loss": None, "logits": y, "hidden": x.flatten(1)},
    "dict of one": lambda y, x: {"out": y},
    "tuple": lambda y, x: (y, x),
    "list": lambda y, x: [y],
    "named tuple": lambda y, x: Outputs(y, 2 * y),
    "object": lambda y, x: Output(y),
    "features before": lambda y, x: (x, y),
}


@pytest.mark.parametrize("answer", CLEAR.values(), ids=CLEAR)
def test_logits_are_found_among_the_answers(answer: Any) -> None:
    net, x = Says(answer), torch.rand(4, *SHAPE)
    artifact = from_module(net, shape=SHAPE, mean=[0.5], std=[0.5])
    assert artifact.num_classes == 5
    assert torch.equal(artifact.module(x), net.net((x - 0.5) / 0.5))


UNCLEAR = {
    "two": (lambda y, x: (y, 2 * y), r"tuple of 0: \(2, 5\), 1: \(2, 5\)"),
    "none": (lambda y, x: (x,), "logits only"),
    "nothing": (lambda y, x: None, "NoneType"),
    "empty": (lambda y, x: {}, "dict"),
}


@pytest.mark.parametrize(("answer", "said"), UNCLEAR.values(), ids=UNCLEAR)
def test_answers_that_may_be_anything_give_one_line(answer: Any, said: str) -> None:
    with pytest.raises(UnusableInput, match=said) as error:
        from_module(Says(answer), shape=SHAPE)
    assert "\n" not in str(error.value)


def test_such_a_net_is_saved_without_what_was_put_around_it(tmp_path: Any) -> None:
    artifact = from_module(Says(CLEAR["dict"]), shape=SHAPE, mean=[0.5], std=[0.25])
    assert isinstance(artifact.module, Normalized)
    assert isinstance(artifact.module.net, LogitsOnly)
    from assay.formats.safetensors_check import read_weights

    weights = read_weights(formats.save(artifact, tmp_path))
    assert set(weights.tensors) == set(Says(None).state_dict())
    assert weights.metadata["assay.std"] == "[0.25]"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_copied(dtype: torch.dtype) -> None:
    net = small_net().to(dtype)
    artifact = from_module(net, shape=SHAPE)
    assert {p.dtype for p in artifact.module.parameters()} == {torch.float32}
    assert {p.dtype for p in net.parameters()} == {dtype}
    assert str(dtype).removeprefix("torch.") in artifact.notes[0]
    assert artifact.module(torch.rand(2, *SHAPE)).isfinite().all()


def test_a_net_without_weights_gives_one_line() -> None:
    with pytest.raises(UnusableInput, match="device meta"):
        from_module(small_net().to("meta"), shape=SHAPE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_net_on_the_gpu_is_copied() -> None:
    net = small_net().to("cuda")
    artifact = from_module(net, shape=SHAPE)
    assert next(artifact.module.parameters()).device.type == "cpu"
    assert next(net.parameters()).device.type == "cuda"
    assert "cuda" in artifact.notes[0]


class Locked(nn.Module):
    """Cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net().double()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def __deepcopy__(self, memo: object) -> Any:
        raise TypeError("cannot pickle a lock\nand more")


def test_a_net_that_cannot_be_copied_gives_one_line() -> None:
    with pytest.raises(UnusableInput, match=r"cannot pickle a lock; give it as net\.float\(\)\.cpu\(\)$"):
        from_module(Locked(), shape=SHAPE)
