"""Static limits of ONNX graphs, their names, external data and custom operators."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from assay.core.errors import UnusableInput
from assay.formats.onnx.external_data import embed_external_data
from assay.formats.onnx.read import read_onnx_model

FLOAT = TensorProto.FLOAT


def model(nodes: list[onnx.NodeProto], constants: dict[str, object], **more: object) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, **more)


def read(made: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    (folder / "m.onnx").write_bytes(made.SerializeToString())
    return read_onnx_model(folder / "m.onnx")


def loop(turns: int, inside: list[onnx.NodeProto]) -> onnx.NodeProto:
    body = helper.make_graph(
        [*inside, helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Relu", ["value"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, None),
        ],
    )
    return helper.make_node("Loop", [f"turns{turns}", "true", "x"], [f"y{turns}" if inside == [] else "y"], body=body)


SIZES: dict[str, tuple[onnx.NodeProto, dict[str, object]]] = {
    "filled": (helper.make_node("ConstantOfShape", ["s"], ["y"]), {"s": np.array([2**20, 2**20])}),
    "expanded": (helper.make_node("Expand", ["x", "s"], ["y"]), {"s": np.array([2**16, 2**16, 4, 4])}),
    "repeated": (helper.make_node("Tile", ["x", "s"], ["y"]), {"s": np.array([1, 1, 10**5, 10**5])}),
    "padded": (helper.make_node("Pad", ["x", "s"], ["y"]), {"s": np.array([0, 0, 10**6, 0, 0, 0, 0, 0])}),
    "resized": (helper.make_node("Resize", ["x", "", "s"], ["y"]), {"s": np.array([1, 1, 1e6, 1e6], np.float32)}),
    "numbered": (
        helper.make_node("Range", ["a", "b", "c"], ["y"]),
        {"a": np.int64(0), "b": np.int64(2**62), "c": np.int64(1)},
    ),
    "random": (helper.make_node("RandomNormal", [], ["y"], shape=[2**30, 2**30]), {}),
    "strides": (helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[10**6, 1]), {"w": np.ones((3, 1, 1, 1))}),
}


@pytest.mark.parametrize("case", SIZES.values(), ids=SIZES)
def test_sizes_that_constants_ask_for_are_bounded(
    tmp_path: Path, case: tuple[onnx.NodeProto, dict[str, object]]
) -> None:
    with pytest.raises(UnusableInput, match="no model needs that much"):
        read(model([case[0]], case[1]), tmp_path)


@pytest.mark.parametrize("turns", [(2**62,), (1000, 1001)])
def test_turns_of_nested_loops_are_bounded(tmp_path: Path, turns: tuple[int, ...]) -> None:
    inner = [] if len(turns) == 1 else [loop(turns[1], [])]
    constants = {f"turns{count}": np.int64(count) for count in turns} | {"true": np.bool_(True)}
    with pytest.raises(UnusableInput, match="expected loops of at most"):
        read(model([loop(turns[0], inner)], constants), tmp_path)


def function(name: str, calls: list[str]) -> onnx.FunctionProto:
    nodes = [helper.make_node(call, ["a"], [f"b{place}"], domain="my") for place, call in enumerate(calls)]
    nodes.append(helper.make_node("Sum", [f"b{place}" for place in range(len(calls))] or ["a"], ["b"]))
    return helper.make_function("my", name, ["a"], ["b"], nodes, [helper.make_opsetid("", 18)])


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ([("F", ["G"]), ("G", ["F"])], "functions without recursion"),
        (
            [("F", ["F1"] * 60), *((f"F{n}", [f"F{n + 1}"] * 60) for n in range(1, 4)), ("F4", [])],
            "at most 100000 nodes",
        ),
    ],
)
def test_recursion_and_growth_of_functions_are_bounded(
    tmp_path: Path, functions: list[tuple[str, list[str]]], message: str
) -> None:
    made = model(
        [helper.make_node("F", ["x"], ["y"], domain="my")], {}, functions=[function(*each) for each in functions]
    )
    with pytest.raises(UnusableInput, match=message):
        read(made, tmp_path)


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    chain = [function("F", ["F1"]), *(function(f"F{n}", [f"F{n + 1}"]) for n in range(1, 40)), function("F40", [])]
    made = model([helper.make_node("F", ["x"], ["y"], domain="my")], {}, functions=chain)
    with pytest.raises(UnusableInput, match="nested at most 32 deep"):
        read(made, tmp_path)


def duplicate_constant(made: onnx.ModelProto) -> None:
    made.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "w"))


def duplicate_value(made: onnx.ModelProto) -> None:
    made.graph.node.append(made.graph.node[0])


def duplicate_metadata(made: onnx.ModelProto) -> None:
    for value in ("[0]", "[1]"):
        made.metadata_props.add(key="assay.mean", value=value)


def duplicate_attribute(made: onnx.ModelProto) -> None:
    made.graph.node[0].attribute.extend([helper.make_attribute("axis", 1), helper.make_attribute("axis", 2)])


def custom_operator(made: onnx.ModelProto) -> None:
    made.graph.node[0].domain = "evil"


CHANGES: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "constant": (duplicate_constant, "expected different constants, got 'w' 2 times"),
    "value": (duplicate_value, "expected different values, got 'y' 2 times"),
    "metadata": (duplicate_metadata, r"expected different metadata, got 'assay\.mean' 2 times"),
    "attribute": (duplicate_attribute, "expected different attributes of Add, got 'axis' 2 times"),
    "operator": (custom_operator, r"got custom operators: evil\.Add\. Fix"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_repeated_names_and_custom_operators_are_refused(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    made = model([helper.make_node("Add", ["x", "w"], ["y"])], {"w": np.float32(1)})
    read(made, tmp_path)
    change(made)
    with pytest.raises(UnusableInput, match=message):
        read(made, tmp_path)


def test_names_outside_of_utf8_are_refused(tmp_path: Path) -> None:
    made = model([helper.make_node("Relu", ["x"], ["QQQQ"]), helper.make_node("Relu", ["QQQQ"], ["y"])], {})
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString().replace(b"QQQQ", b"\xff\xfe\xed\xa0"))
    with pytest.raises(UnusableInput, match="expected names in UTF-8"):
        read_onnx_model(tmp_path / "m.onnx")


def with_external_data(location: str, **facts: str) -> onnx.ModelProto:
    made = model([helper.make_node("Add", ["x", "w"], ["y"])], {"w": np.arange(4, dtype=np.float32)})
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **facts}.items():
        tensor.external_data.add(key=key, value=value)
    return made


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"offset": "8"}, "in a file of 16 bytes"),
        ({"offset": "-1"}, "in a file of 16 bytes"),
        ({"offset": "1e3"}, "offset and length as whole numbers"),
        ({"length": "4"}, "expected 16 bytes at 0"),
        ({"offset": str(2**62)}, "in a file of 16 bytes"),
    ],
)
def test_places_outside_of_external_data_are_refused(tmp_path: Path, facts: dict[str, str], message: str) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(16))
    read(with_external_data("w.bin"), tmp_path)
    with pytest.raises(UnusableInput, match=message):
        read(with_external_data("w.bin", **facts), tmp_path)


def test_address_in_memory_and_pointers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "*" / "_ORT_MEM_ADDR_").mkdir(parents=True)
    (tmp_path / "*" / "_ORT_MEM_ADDR_" / "*").write_bytes(bytes(16))
    with pytest.raises(UnusableInput, match="leads out of the model's folder"):
        read(with_external_data("*/_ORT_MEM_ADDR_/*"), tmp_path)
    (tmp_path / "w.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 16\n")
    with pytest.raises(UnusableInput, match="git lfs pull"):
        read(with_external_data("w.bin"), tmp_path)


def test_links_of_the_hub_cache_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "abc" / "onnx"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "1").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (blobs / "2").write_bytes(with_external_data("w.bin").SerializeToString())
    os.symlink("../../../blobs/1", snapshot / "w.bin")
    os.symlink("../../../blobs/2", snapshot / "m.onnx")
    found = read_onnx_model(snapshot / "m.onnx")
    embed_external_data(found, snapshot / "m.onnx")
    assert numpy_helper.to_array(found.graph.initializer[0]).tolist() == [0, 1, 2, 3]
