"""Models in memory with other weights than float32 on the CPU, or with several outputs."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
from support.small_nets import small_model
from torch import Tensor, nn

from assay import formats
from assay.core.errors import UnusableInput
from assay.formats import from_module
from assay.formats.adapt import LogitsOnly
from assay.nn.architectures import Normalized

SHAPE = (3, 8, 8)
Outputs = namedtuple("Outputs", "logits aux")


class Returns(nn.Module):
    """A small model with an output made from its logits."""

    def __init__(self, make_output: Any) -> None:
        super().__init__()
        self.net = small_model()
        self.make_output = make_output

    def forward(self, x: Tensor) -> Any:
        return self.make_output(self.net(x), x)


class Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


CLEAR = {
    "dict": lambda y, x: {"loss": None, "logits": y, "hidden": x},
    "dict of one": lambda y, x: {"out": y},
    "tuple": lambda y, x: (y, x),
    "list": lambda y, x: [y],
    "named tuple": lambda y, x: Outputs(y, y.argmax(1)),
    "one column": lambda y, x: (y[:, :1], y),
    "single position": lambda y, x: {"out": y[:, :, None, None], "labels": y.argmax(1)},
    "object": lambda y, x: Output(y),
    "features before": lambda y, x: (x, y),
}


@pytest.mark.parametrize("output", CLEAR.values(), ids=CLEAR)
def test_logits_are_selected_from_several_outputs(output: Any) -> None:
    model, x = Returns(output), torch.rand(4, *SHAPE)
    artifact = from_module(model, shape=SHAPE, mean=[0.5], std=[0.5])
    assert artifact.num_classes == 5
    assert torch.equal(artifact.module(x), model.net((x - 0.5) / 0.5))


UNCLEAR = {
    "two": (lambda y, x: (y, 2 * y), r"got 2: '0' \(float32 \[2, 5\]\), '1' .* Fix: .* option output: '0', '1'\.$"),
    "named by the model": (lambda y, x: {"logits": y, "aux": -y}, "option output: 'logits', 'aux'"),
    "features": (lambda y, x: (x.flatten(1), y), r"got 2: '0' \(float32 \[2, 192\]\)"),
    "none": (lambda y, x: (x,), r"got '0' \(float32 \[2, 3, 8, 8\]\)"),
    "nothing": (lambda y, x: None, "NoneType"),
    "empty": (lambda y, x: {}, "dict"),
}


@pytest.mark.parametrize(("output", "message"), UNCLEAR.values(), ids=UNCLEAR)
def test_ambiguous_outputs_are_refused_in_one_line(output: Any, message: str) -> None:
    with pytest.raises(UnusableInput, match=message) as error:
        from_module(Returns(output), shape=SHAPE)
    assert "\n" not in str(error.value)


def test_given_output_is_taken_and_the_others_are_reported() -> None:
    model, x = Returns(lambda y, x: Outputs(y, -y)), torch.rand(4, *SHAPE)
    artifact = from_module(model, shape=SHAPE, output="aux")
    assert torch.equal(artifact.module(x), -model.net(x))
    assert artifact.unexamined_outputs == ("logits",)
    assert "of the model's outputs, logits was not examined" in artifact.notes
    with pytest.raises(UnusableInput, match=r"got 'head'; it has 'logits' \(float32 \[2, 5\]\), 'aux'"):
        from_module(model, shape=SHAPE, output="head")
    with pytest.raises(UnusableInput, match="as the output '1', got "):
        from_module(Returns(lambda y, x: (y, x)), shape=SHAPE, output="1")


def test_logits_that_the_class_of_transformers_names_are_taken() -> None:
    from transformers.modeling_outputs import ImageClassifierOutput

    model, x = Returns(lambda y, x: ImageClassifierOutput(logits=y, hidden_states=2 * y)), torch.rand(4, *SHAPE)
    assert torch.equal(from_module(model, shape=SHAPE).module(x), model.net(x))


def test_saved_file_omits_the_selection_of_logits(tmp_path: Any) -> None:
    artifact = from_module(Returns(CLEAR["dict"]), shape=SHAPE, mean=[0.5], std=[0.25])
    assert isinstance(artifact.module, Normalized)
    assert isinstance(artifact.module.net, LogitsOnly)
    from assay.formats.safetensors_check import read_weights

    weights = read_weights(formats.save(artifact, tmp_path))
    assert set(weights.tensors) == set(Returns(None).state_dict())
    assert weights.metadata["assay.std"] == "[0.25]"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_model_of_other_floats_is_copied(dtype: torch.dtype) -> None:
    model = small_model().to(dtype)
    artifact = from_module(model, shape=SHAPE)
    assert {p.dtype for p in artifact.module.parameters()} == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert str(dtype).removeprefix("torch.") in artifact.notes[0]
    assert artifact.module(torch.rand(2, *SHAPE)).isfinite().all()


def test_model_without_weights_is_refused() -> None:
    with pytest.raises(UnusableInput, match="device meta"):
        from_module(small_model().to("meta"), shape=SHAPE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_model_on_the_gpu_is_copied() -> None:
    model = small_model().to("cuda")
    artifact = from_module(model, shape=SHAPE)
    assert next(artifact.module.parameters()).device.type == "cpu"
    assert next(model.parameters()).device.type == "cuda"
    assert "cuda" in artifact.notes[0]


class Uncopyable(nn.Module):
    """A model without copies."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_model().double()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def __deepcopy__(self, memo: object) -> Any:
        raise TypeError("cannot pickle a lock\nand more")


def test_model_without_copies_is_refused_in_one_line() -> None:
    with pytest.raises(UnusableInput, match=r"cannot pickle a lock\. Fix: pass model\.float\(\)\.cpu\(\)\.$"):
        from_module(Uncopyable(), shape=SHAPE)
