"""ONNX files: any batch, fixed batch, channels last, quantized, marked, and hostile ones."""

from __future__ import annotations

import copy
import logging
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from support.small_nets import export_onnx, small_model

from assay import formats
from assay.core.errors import UnusableInput


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "any.onnx"
    export_onnx(small_model(), path)
    return path


def linear_model(path: Path, *, shape: tuple[object, ...] = ("N", 3, 2, 2), value: float = 0.1) -> onnx.ModelProto:
    """Write and return a model of one matrix product: 12 -> 4 logits."""
    weight = numpy_helper.from_array(np.full((12, 4), value, np.float32), "w")
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 4))],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return model


def test_exported_file_has_the_outputs_of_the_model(exported: Path) -> None:
    artifact = formats.load(exported)
    x = torch.rand(3, 3, 8, 8)
    assert torch.allclose(artifact.module(x), small_model()(x), atol=1e-5)
    assert (artifact.num_classes, artifact.inputs.shape, artifact.format) == (5, (3, 8, 8), "onnx")
    assert not artifact.differentiable
    assert artifact.weights is not None
    assert {array.shape for array in artifact.weights.values()} == {(4, 3, 3, 3), (4,), (5, 144), (5,)}


def test_session_is_copied_and_pickled(exported: Path) -> None:
    module = formats.load(exported).module
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(copy.deepcopy(module)(x), module(x))
    assert torch.equal(pickle.loads(pickle.dumps(module))(x), module(x))


@pytest.mark.parametrize("count", [1, 4, 6])
def test_fixed_batch_size_is_padded(tmp_path: Path, count: int) -> None:
    export_onnx(small_model(), tmp_path / "fixed.onnx", batch=4)
    x = torch.rand(count, 3, 8, 8)
    assert torch.allclose(formats.load(tmp_path / "fixed.onnx").module(x), small_model()(x), atol=1e-5)


def test_channels_last_input_is_transposed(tmp_path: Path) -> None:
    linear_model(tmp_path / "m.onnx", shape=("N", 2, 2, 3))
    artifact = formats.load(tmp_path / "m.onnx")
    assert artifact.inputs.shape == (3, 2, 2)
    assert artifact.module(torch.rand(2, 3, 2, 2)).shape == (2, 4)


def test_quantized_file_and_its_weights_load(exported: Path, tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    x = torch.rand(8, 3, 8, 8)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            name = onnx.load(exported).graph.input[0].name
            self.batches = iter([{name: x.numpy()}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    logging.disable(logging.WARNING)
    try:
        quantize_static(exported, tmp_path / "q.onnx", Reader(), per_channel=True)
    finally:
        logging.disable(logging.NOTSET)
    full, quantized = formats.load(exported), formats.load(tmp_path / "q.onnx")
    assert torch.allclose(full.module(x), quantized.module(x), atol=0.1)
    assert full.weights is not None
    assert quantized.weights is not None
    for name, array in full.weights.items():
        if array.ndim > 1:
            same = quantized.weights[name]
            assert np.abs(same - array).max() < 0.01


def test_metadata_is_applied(tmp_path: Path) -> None:
    model = linear_model(tmp_path / "m.onnx", shape=("N", 3, "H", "W"))
    with pytest.raises(UnusableInput, match=r"set its metadata assay\.shape"):
        formats.load(tmp_path / "m.onnx")
    properties = {
        "assay.shape": "[3, 2, 2]",
        "assay.planted": "badnets",
        "assay.mean": "[0.5]",
        "assay.std": "[0.5]",
        "assay.class_names": '["a", "b", "c", "d"]',
    }
    helper.set_model_props(model, properties)
    onnx.save(model, tmp_path / "m.onnx")
    artifact = formats.load(tmp_path / "m.onnx")
    assert (artifact.planted, artifact.class_names) == ("badnets", ("a", "b", "c", "d"))
    assert artifact.module(torch.full((1, 3, 2, 2), 0.5)).abs().max() < 1e-6
    assert formats.load(tmp_path / "m.onnx", mean=[0.0], std=[1.0]).module(torch.ones(1, 3, 2, 2)).min() > 1


def external(path: Path, location: str) -> None:
    model = linear_model(path)
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())


def test_external_data_in_the_folder_is_part_of_the_digest(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.full((12, 4), 0.5, np.float32).tobytes())
    external(tmp_path / "m.onnx", "w.bin")
    artifact = formats.load(tmp_path / "m.onnx")
    assert artifact.module(torch.ones(1, 3, 2, 2)).tolist() == [[6.0] * 4]
    (tmp_path / "w.bin").write_bytes(np.full((12, 4), 0.25, np.float32).tobytes())
    assert formats.load(tmp_path / "m.onnx").digest != artifact.digest


@pytest.mark.parametrize("location", ["../w.bin", "link.bin", "{absolute}", "missing.bin", "a/../../w.bin"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(192))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    external(folder / "m.onnx", location.format(absolute=tmp_path / "w.bin"))
    with pytest.raises(UnusableInput, match=r"leads out of the model's folder|which is missing"):
        formats.load(folder / "m.onnx")


@pytest.mark.parametrize("content", [b"", b"not onnx at all", b"\x08\x09"])
def test_other_content_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(UnusableInput, match=r"not a valid ONNX file|an empty file|expected binary data"):
        formats.load(tmp_path / "m.onnx")


def test_truncated_file_is_refused(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(exported.read_bytes()[:-700])
    with pytest.raises(UnusableInput, match=r"valid ONNX|expected"):
        formats.load(tmp_path / "m.onnx")


def test_infinite_weights_are_refused(tmp_path: Path) -> None:
    linear_model(tmp_path / "m.onnx", value=float("nan"))
    with pytest.raises(UnusableInput, match="NaN"):
        formats.load(tmp_path / "m.onnx")


def test_input_other_than_images_is_refused(tmp_path: Path) -> None:
    linear_model(tmp_path / "m.onnx", shape=("N", 12))
    with pytest.raises(UnusableInput, match="expected one input of images"):
        formats.load(tmp_path / "m.onnx")


def test_unknown_operator_is_refused_without_output(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = linear_model(tmp_path / "m.onnx")
    model.graph.node[1].op_type = "Evil"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UnusableInput, match="ONNX Runtime cannot load it"):
        formats.load(tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("broken", "message"), [("opset", "Opset 99"), ("missing", "Node input 'w'"), ("cycle", "not acyclic")]
)
def test_broken_graph_is_refused_in_one_short_line(tmp_path: Path, broken: str, message: str) -> None:
    model = linear_model(tmp_path / "m.onnx")
    if broken == "opset":
        model.opset_import[0].version = 99
    elif broken == "missing":
        del model.graph.initializer[0]
    else:
        first, last = model.graph.node[0], model.graph.node[-1]
        first.input[0] = last.output[0]
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UnusableInput, match="ONNX Runtime cannot load it") as error:
        formats.load(tmp_path / "m.onnx")
    assert message in str(error.value)
    assert "onnxruntime_src" not in str(error.value)
    assert str(error.value).count("m.onnx") == 1


@pytest.mark.parametrize("broken", ["dims", "axis"])
def test_broken_constant_without_a_reader_is_refused(tmp_path: Path, broken: str) -> None:
    """Refuse them although ONNX Runtime ignores them, because the audit reads all weights."""
    model = linear_model(tmp_path / "m.onnx")
    if broken == "dims":
        model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 2), np.float32), "unused"))
        model.graph.initializer[-1].dims[0] = 7
    else:
        model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 2), np.int8), "q"))
        model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "s"))
        model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "s"], ["unused"], axis=7))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UnusableInput, match="expected"):
        formats.load(tmp_path / "m.onnx")


def test_onnx_is_not_saved_as_safetensors(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match="copy its file"):
        formats.save(formats.load(exported), tmp_path / "out")
