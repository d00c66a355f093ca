"""Inputs and outputs of ONNX files: kinds, layouts, batch sizes, and the choice of the logits."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from assay import formats
from assay.core.errors import UnusableInput

WEIGHT = np.linspace(-1, 1, 48, dtype=np.float32).reshape(12, 4)


def save(
    path: Path,
    *,
    outputs: dict[str, list[Any]] | None = None,
    shape: tuple[Any, ...] = ("N", 3, 2, 2),
    kind: int = TensorProto.FLOAT,
    before: tuple[Any, ...] = (),
    more_inputs: tuple[Any, ...] = (),
) -> Path:
    """Write a model of one matrix product with further outputs.

    Args:
        path: The file.
        outputs: Nodes that make each output; each may read ``y``, the logits. None: ``y`` alone.
        shape: Shape of the input.
        kind: Type of the input ``x``.
        before: Nodes between ``x`` and ``z``, the input of the product. None: they are the same.
        more_inputs: Further inputs.
    """
    nodes = [*(before or (helper.make_node("Identity", ["x"], ["z"]),)), helper.make_node("Flatten", ["z"], ["flat"])]
    nodes.append(helper.make_node("MatMul", ["flat", "w"], ["y"]))
    nodes += [node for made in (outputs or {}).values() for node in made]
    values = [onnx.ValueInfoProto(name=name) for name in outputs or {"y": []}]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape), *more_inputs],
        values,
        [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(np.array([1, -1]), "one_row")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def expected(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1) @ torch.from_numpy(WEIGHT)


NEGATIVE = [helper.make_node("Neg", ["y"], ["logits"])]
LABEL = [helper.make_node("ArgMax", ["y"], ["label"], axis=1)]


def test_two_possible_outputs_are_refused_by_name_even_if_one_is_called_logits(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", outputs={"logits": NEGATIVE, "y": []})
    with pytest.raises(
        UnusableInput, match=r"got 2: 'logits' \(float32 \[2, 4\]\), 'y' .* option output: 'logits', 'y'"
    ):
        formats.load(path)
    with pytest.raises(UnusableInput, match=r"got 'head'; it has 'logits'"):
        formats.load(path, output="head")


@pytest.mark.parametrize(("name", "sign"), [("y", 1), ("logits", -1)])
def test_given_output_is_audited_and_the_other_reported(tmp_path: Path, name: str, sign: int) -> None:
    artifact = formats.load(save(tmp_path / "m.onnx", outputs={"logits": NEGATIVE, "y": []}), output=name)
    x = torch.rand(3, 3, 2, 2)
    assert torch.allclose(artifact.module(x), sign * expected(x), atol=1e-5)
    (other,) = {"y", "logits"} - {name}
    assert artifact.unexamined_outputs == (other,)
    assert any(f"{other} was not examined" in note for note in artifact.notes)


def test_whole_numbers_and_single_columns_are_no_logits(tmp_path: Path) -> None:
    column = [helper.make_node("ReduceMax", ["y"], ["column"], keepdims=1)]
    artifact = formats.load(save(tmp_path / "m.onnx", outputs={"label": LABEL, "column": column, "y": []}))
    assert artifact.num_classes == 4
    assert artifact.unexamined_outputs == ("label", "column")
    assert artifact.surrogate is not None  # the operator of the label does not matter


def test_logits_with_single_positions_are_flattened(tmp_path: Path) -> None:
    axes = helper.make_node("Constant", [], ["axes"], value_ints=[2, 3])
    artifact = formats.load(
        save(tmp_path / "m.onnx", outputs={"map": [axes, helper.make_node("Unsqueeze", ["y", "axes"], ["map"])]})
    )
    x = torch.rand(3, 3, 2, 2)
    assert torch.allclose(artifact.module(x), expected(x), atol=1e-5)


def test_sequences_are_named_in_the_refusal(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", outputs={"s": [helper.make_node("SequenceConstruct", ["y"], ["s"])]})
    with pytest.raises(UnusableInput, match=r"got 's' \(a sequence of ndarray\)"):
        formats.load(path)


@pytest.mark.parametrize("last", [False, True])
def test_eight_bit_input_gets_rounded_images_and_has_gradients(tmp_path: Path, last: bool) -> None:
    cast = (helper.make_node("Cast", ["x"], ["z"], to=1),)
    shape = ("N", 2, 2, 3) if last else ("N", 3, 2, 2)
    artifact = formats.load(save(tmp_path / "m.onnx", kind=TensorProto.UINT8, shape=shape, before=cast))
    x = torch.rand(3, 3, 2, 2)
    seen = (255 * x).round()
    assert torch.allclose(artifact.module(x), expected(seen.permute(0, 2, 3, 1) if last else seen), atol=1e-2)
    assert any("8-bit" in note for note in artifact.notes)
    assert not artifact.normalization_unknown
    assert artifact.surrogate is not None
    x.requires_grad_()
    artifact.surrogate(x).sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
    with pytest.raises(UnusableInput, match="expected no mean and std for a file with an 8-bit input"):
        formats.load(tmp_path / "m.onnx", mean=[0.5], std=[0.5])


@pytest.mark.parametrize(("kind", "dtype"), [(TensorProto.DOUBLE, torch.float64), (TensorProto.FLOAT16, torch.float16)])
def test_other_floats_are_converted(tmp_path: Path, kind: int, dtype: torch.dtype) -> None:
    cast = (helper.make_node("Cast", ["x"], ["z"], to=1),)
    artifact = formats.load(save(tmp_path / "m.onnx", kind=kind, before=cast))
    x = torch.rand(3, 3, 2, 2)
    assert torch.allclose(artifact.module(x), expected(x.to(dtype).float()), atol=1e-5)


def test_input_without_a_reader_is_ignored_with_a_note(tmp_path: Path) -> None:
    unread = helper.make_tensor_value_info("is_training", TensorProto.BOOL, [])
    artifact = formats.load(save(tmp_path / "m.onnx", more_inputs=(unread,)))
    x = torch.rand(3, 3, 2, 2)
    for module in (artifact.module, copy.deepcopy(artifact.module), pickle.loads(pickle.dumps(artifact.module))):
        assert torch.allclose(module(x), expected(x), atol=1e-5)
    assert "its input is_training is ignored, because nothing reads it" in artifact.notes


def test_second_input_with_a_reader_is_refused(tmp_path: Path) -> None:
    second = helper.make_tensor_value_info("shift", TensorProto.FLOAT, ["N", 3, 2, 2])
    before = (helper.make_node("Add", ["x", "shift"], ["z"]),)
    with pytest.raises(UnusableInput, match=r"got x: .*shift: .* Fix: export it with constants"):
        formats.load(save(tmp_path / "m.onnx", before=before, more_inputs=(second,)))


def test_input_without_a_batch_axis_is_refused_with_a_fix(tmp_path: Path) -> None:
    axis = helper.make_node("Constant", [], ["axis"], value_ints=[0])
    before = (axis, helper.make_node("Unsqueeze", ["x", "axis"], ["z"]))
    with pytest.raises(UnusableInput, match="Fix: export it with a batch axis in front"):
        formats.load(save(tmp_path / "m.onnx", shape=(3, 2, 2), before=before))


def test_open_batch_axis_that_takes_one_image_runs_one_by_one(tmp_path: Path) -> None:
    row = [helper.make_node("Reshape", ["y", "one_row"], ["row"])]
    artifact = formats.load(save(tmp_path / "m.onnx", outputs={"row": row}))
    x = torch.rand(3, 3, 2, 2)
    assert torch.allclose(artifact.module(x), expected(x), atol=1e-5)
    assert any("runs on one image at a time" in note for note in artifact.notes)


def test_open_batch_axis_with_a_batch_of_four_inside_runs_in_batches_of_four(tmp_path: Path) -> None:
    inside = (
        helper.make_node("Constant", [], ["four"], value=numpy_helper.from_array(np.array([4, 12]))),
        helper.make_node("Reshape", ["x", "four"], ["z"]),
    )
    artifact = formats.load(save(tmp_path / "m.onnx", before=inside))
    for count in (1, 3, 4, 7):
        x = torch.rand(count, 3, 2, 2)
        assert torch.allclose(artifact.module(x), expected(x), atol=1e-5)
    assert any("runs on batches of 4 images only, although" in note for note in artifact.notes)


def test_images_as_other_whole_numbers_are_refused(tmp_path: Path) -> None:
    cast = (helper.make_node("Cast", ["x"], ["z"], to=TensorProto.FLOAT),)
    for kind in (TensorProto.INT8, TensorProto.INT32):
        with pytest.raises(UnusableInput, match="Fix: export it with an input of floats or uint8"):
            formats.load(save(tmp_path / "m.onnx", kind=kind, before=cast))


def test_open_sizes_need_a_shape_and_fixed_ones_refuse_another(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", shape=("N", "C", "H", "W"))
    with pytest.raises(UnusableInput, match="Fix: give the shape"):
        formats.load(path)
    artifact = formats.load(path, shape=(3, 2, 2))
    assert any("leaves the order of the axes open" in note for note in artifact.notes)
    with pytest.raises(UnusableInput, match="expected images of the size"):
        formats.load(save(tmp_path / "fixed.onnx"), shape=(3, 4, 4))


def test_huge_fixed_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match="got a fixed batch of 1000000 images"):
        formats.load(save(tmp_path / "m.onnx", shape=(1_000_000, 3, 2, 2)))


def test_session_without_optimizations_has_the_same_outputs(tmp_path: Path) -> None:
    module = formats.load(save(tmp_path / "m.onnx", outputs={"logits": NEGATIVE, "y": []}), output="y").module
    x = torch.rand(3, 3, 2, 2)
    plain = module.with_optimization(False)  # type: ignore[operator]
    assert not plain.optimized
    assert torch.allclose(plain(x), module(x), atol=1e-5)
