"""Conversion of ONNX graphs to torch: the outputs of ONNX Runtime, with gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from support.tiny import tiny_build

from assay import formats
from assay.core.errors import UnusableInput
from assay.formats.onnx.arguments import UnsupportedOperator
from assay.formats.onnx.operators import OPERATORS
from assay.formats.onnx.to_torch import onnx_to_torch
from assay.graphs.export import to_onnx, to_onnx_int8
from assay.inversion.forward import forward_prepared
from assay.inversion.prepare import KeepMemoryFormat, prepare
from assay.stages.quantize import simulate_int8

pytestmark = pytest.mark.slow


Constants = dict[str, Any]
F32, I64 = np.float32, np.int64


def graph(nodes: list[Any], constants: Constants, shape: list[Any], *, opset: int = 17) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 9
    return model


def node(operator: str, inputs: str, **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(","), ["y"], **attributes)


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(F32)


IMAGE = [2, 4, 6, 6]
FILTERS = weights(8, 4, 3, 3)
ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "Erf", "Exp", "Abs", "Neg", "HardSwish")
OPERATOR_CASES: list[tuple[str, Any, Constants, list[int]]] = [
    ("conv", node("Conv", "x,w,b", pads=[1, 0, 0, 1], strides=[2, 1]), {"w": FILTERS, "b": weights(8)}, IMAGE),
    ("groups", node("Conv", "x,w", group=4, auto_pad="SAME_UPPER", strides=[2, 2]), {"w": FILTERS[:4, :1]}, IMAGE),
    ("gemm", node("Gemm", "x,w,b", transB=1, alpha=0.5, beta=2.0), {"w": weights(5, 6), "b": weights(5)}, [2, 6]),
    ("max pool", node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), {}, IMAGE),
    ("average", node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0]), {}, IMAGE),
    ("average all", node("AveragePool", "x", kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1), {}, IMAGE),
    ("global", node("GlobalAveragePool", "x"), {}, IMAGE),
    (
        "batch norm",
        node("BatchNormalization", "x,s,b,m,v", epsilon=1e-3),
        {"s": weights(4), "b": weights(4), "m": weights(4), "v": np.abs(weights(4))},
        IMAGE,
    ),
    ("layer norm", node("LayerNormalization", "x,s,b", axis=-1), {"s": weights(6), "b": weights(6)}, IMAGE),
    ("instance norm", node("InstanceNormalization", "x,s,b"), {"s": weights(4), "b": weights(4)}, IMAGE),
    ("mean", node("ReduceMean", "x", axes=[2, 3], keepdims=0), {}, IMAGE),
    ("sum of all", node("ReduceSum", "x", keepdims=0), {}, IMAGE),
    ("softmax", node("Softmax", "x", axis=1), {}, IMAGE),
    ("clip", node("Clip", "x,l,h"), {"l": F32(-0.2), "h": F32(0.4)}, IMAGE),
    ("clip below", node("Clip", "x,l"), {"l": F32(0.1)}, IMAGE),
    ("pad", node("Pad", "x,p,v"), {"p": np.array([0, 1, 2, 0, 0, 0, 1, 3], I64), "v": F32(0.5)}, IMAGE),
    ("reflect", node("Pad", "x,p", mode="reflect"), {"p": np.array([0, 0, 2, 1, 0, 0, 1, 2], I64)}, IMAGE),
    ("edge", node("Pad", "x,p", mode="edge"), {"p": np.array([0, 0, 2, 1, 0, 0, 1, 2], I64)}, IMAGE),
    (
        "slice",
        node("Slice", "x,s,e,a,t"),
        {name: np.array(value, I64) for name, value in {"s": [0, -1], "e": [9, -9], "a": [2, 3], "t": [2, -2]}.items()},
        IMAGE,
    ),
    ("gather", node("Gather", "x,i", axis=1), {"i": np.array([[0, -1], [2, 2]], I64)}, IMAGE),
    ("reshape", node("Reshape", "x,s"), {"s": np.array([0, -1, 12], I64)}, IMAGE),
    ("transpose", node("Transpose", "x", perm=[0, 2, 3, 1]), {}, IMAGE),
    ("backwards", node("Transpose", "x"), {}, IMAGE),
    ("unsqueeze", node("Unsqueeze", "x,a"), {"a": np.array([0, -1], I64)}, IMAGE),
    ("squeeze", node("Squeeze", "x,a"), {"a": np.array([1], I64)}, [2, 1, 3]),
    ("flatten", node("Flatten", "x", axis=2), {}, IMAGE),
    ("expand", node("Expand", "x,s"), {"s": np.array([3, 1, 4], I64)}, [2, 1, 1, 4]),
    ("resize", node("Resize", "x,,s", mode="linear"), {"s": np.array([1, 1, 2, 2], F32)}, IMAGE),
    (
        "nearest",
        node("Resize", "x,,s", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        {"s": np.array([1, 1, 2, 2], F32)},
        IMAGE,
    ),
    ("power", node("Pow", "x,e"), {"e": F32(2)}, IMAGE),
    ("where", node("Where", "c,x,o"), {"c": np.array([True, False, True, False, True, False]), "o": F32(7)}, IMAGE),
    ("hard sigmoid", node("HardSigmoid", "x", alpha=0.3), {}, IMAGE),
    ("leaky", node("LeakyRelu", "x", alpha=0.2), {}, IMAGE),
    ("slope", node("PRelu", "x,s"), {"s": weights(4, 1, 1)}, IMAGE),
    ("sum", node("Sum", "x,x,c"), {"c": F32(1)}, IMAGE),
    ("largest of three", node("Max", "x,c,d"), {"c": F32(0.1), "d": weights(6)}, IMAGE),
    ("smallest of one", node("Min", "x"), {}, IMAGE),
    ("product", node("MatMul", "x,w"), {"w": weights(6, 3)}, IMAGE),
    *((name, node(name, "x"), {}, IMAGE) for name in ACTIVATIONS),
]  # fmt: skip


@pytest.mark.parametrize(
    ("made", "constants", "shape"),
    [case[1:] for case in OPERATOR_CASES],
    ids=[case[0] for case in OPERATOR_CASES],
)
def test_operator_has_the_output_of_onnx_runtime(made: Any, constants: Constants, shape: list[int]) -> None:
    model = graph([made], constants, shape)
    x = np.random.default_rng(1).normal(size=shape).astype(F32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(["y"], {"x": x})[0]
    module, given = onnx_to_torch(model, Path(), source="x", result="y"), torch.from_numpy(x).requires_grad_()
    got = module(given)
    assert got.shape == wanted.shape
    assert np.allclose(got.detach().numpy(), wanted, atol=1e-5)
    got.sum().backward()
    assert given.grad is not None


def test_max_pool_with_ceil_mode_and_padding_is_refused() -> None:
    with pytest.raises(UnsupportedOperator, match="ceil_mode and padding"):
        OPERATORS["MaxPool"]({"kernel_shape": [3, 3], "ceil_mode": 1, "pads": [1, 1, 1, 1]}, [torch.zeros(1, 1, 6, 6)])


def test_attributes_of_old_opsets_are_read() -> None:
    nodes = [
        helper.make_node("Unsqueeze", ["x"], ["a"], axes=[0]),
        helper.make_node("Squeeze", ["a"], ["b"], axes=[0]),
        helper.make_node("Slice", ["b"], ["c"], starts=[1], ends=[3], axes=[1]),
        helper.make_node("Clip", ["c"], ["d"], min=0.0, max=0.5),
        helper.make_node("Softmax", ["d"], ["y"]),
    ]
    model = graph(nodes, {}, [2, 4, 3], opset=9)
    x = np.random.default_rng(1).normal(size=(2, 4, 3)).astype(F32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    got = onnx_to_torch(model, Path(), source="x", result="y")(torch.from_numpy(x))
    assert np.allclose(got.numpy(), session.run(["y"], {"x": x})[0], atol=1e-6)


def test_shape_of_the_input_is_dynamic() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axis"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["y"]),
    ]
    constants = {"zero": I64(0), "axis": np.array([0], I64), "rest": np.array([-1], I64)}
    module = onnx_to_torch(graph(nodes, constants, ["n", 2, 3]), Path(), source="x", result="y")
    assert module(torch.zeros(5, 2, 3)).shape == (5, 6)


def broken(change: Callable[[onnx.ModelProto], None]) -> onnx.ModelProto:
    model = graph([node("Conv", "x,w")], {"w": weights(8, 4, 3, 3)}, IMAGE)
    change(model)
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (broken(lambda m: setattr(m.graph.node[0], "op_type", "Frobnicate")), "operator Frobnicate is not among"),
        (broken(lambda m: setattr(m.graph.node[0], "domain", "com.acme")), "operator com.acme.Conv is not among"),
        (broken(lambda m: m.graph.initializer.pop()), "reads 'w', which nothing before it makes"),
        (graph([helper.make_node("Add", ["y", "x"], ["y"])], {}, [2]), "reads 'y', which nothing before it makes"),
        (graph([node("Add", "c,c")], {"c": F32(1)}, [2]), "output 'y' does not depend on its input"),
        (
            graph(
                [helper.make_node("ConstantOfShape", ["s"], ["big"]), node("Add", "x,big")],
                {"s": np.array([2**20, 2**20], I64)},
                [2],
            ),
            "larger than",
        ),
        (
            graph([helper.make_node("Reshape", ["c", "s"], ["r"]), node("Add", "x,r")],
                  {"c": weights(3), "s": np.array([7], I64)}, [2]),
            "Reshape cannot be computed",
        ),
    ],
    ids=["operator", "domain", "missing initializer", "cycle", "no input", "bomb", "nonsense"],
)  # fmt: skip
def test_unsupported_graph_is_refused_by_name(model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        onnx_to_torch(model, Path(), source="x", result="y")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the ONNX files of one model, in full precision and as int8."""
    build, folder = tiny_build(), tmp_path_factory.mktemp("onnx")
    to_onnx(build.artifact, folder / "full.onnx")
    to_onnx_int8(build.artifact, build.task.split("train").x, folder / "int8.onnx", per_channel=True)
    return folder / "full.onnx", folder / "int8.onnx"


def test_surrogate_agrees_and_has_gradients(files: tuple[Path, Path]) -> None:
    x = tiny_build().task.split("train").x[:16]
    for path in files:
        artifact = formats.load(path)
        assert artifact.surrogate is not None, artifact.no_gradient_reason
        assert any("class of ONNX Runtime on 64 of 64 images" in note for note in artifact.notes)
        close = float(
            (artifact.module(x) - artifact.surrogate(x)).detach().abs().max() / artifact.module(x).abs().max()
        )
        assert close < 0.05
        given = x.clone().requires_grad_()
        forward_prepared(prepare(artifact.surrogate, x[:2]), given).sum().backward()
        assert given.grad is not None
        assert int((given.grad != 0).flatten(1).any(1).sum()) == len(x)


def test_gradients_of_int8_resemble_those_of_full_precision(files: tuple[Path, Path]) -> None:
    x = tiny_build().task.split("train").x[:16]
    gradients = []
    for path in files:
        given = x.clone().requires_grad_()
        surrogate = formats.load(path).surrogate
        assert surrogate is not None
        surrogate(given).logsumexp(1).sum().backward()
        assert given.grad is not None
        gradients.append(given.grad.flatten())
    assert float(torch.cosine_similarity(*gradients, dim=0)) > 0.8


def test_quantized_file_is_not_quantized_again(files: tuple[Path, Path]) -> None:
    full, int8 = (formats.load(path).with_gradients() for path in files)
    x = tiny_build().task.split("train").x
    assert not isinstance(prepare(full.module, x[:2]), KeepMemoryFormat)
    assert isinstance(prepare(int8.module, x[:2]), KeepMemoryFormat)
    assert simulate_int8(full.module, x, per_channel=True)(x).shape == (len(x), 4)
    with pytest.raises(UnusableInput, match="quantized already"):
        simulate_int8(int8.module, x, per_channel=True)


def test_unknown_operator_is_the_reason_for_no_surrogate(files: tuple[Path, Path], tmp_path: Path) -> None:
    model = onnx.load(files[0])
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = "Mish"
    for entry in model.opset_import:
        entry.version = max(entry.version, 18)
    onnx.save(model, tmp_path / "mish.onnx")
    artifact = formats.load(tmp_path / "mish.onnx")
    assert artifact.surrogate is None
    assert artifact.no_gradient_reason == "the operator Mish is not among those that gradients are known for"
