"""Bare safetensors files: real ones, ones that assay wrote, and hostile ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from assay import formats
from assay.core.errors import UnusableInput
from assay.nn.architectures import Normalized


def write_raw(path: Path, header: object, data: bytes = b"", *, length: int | None = None) -> Path:
    raw = json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def test_real_file_loads_with_its_architecture(shared: Path) -> None:
    artifact = formats.load(shared / "models/resnet20-cifar10/model.safetensors", arch="resnet20-cifar")
    assert (artifact.num_classes, artifact.inputs.shape, artifact.format) == (10, (3, 32, 32), "safetensors")
    assert artifact.name == "resnet20-cifar10"
    assert artifact.planted is None
    assert not artifact.module.training


def test_number_of_classes_is_read_off_the_file(weights_file: Path) -> None:
    artifact = formats.load(weights_file, arch="resnet8-cifar")
    assert artifact.num_classes == 7
    assert artifact.module(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_saved_file_needs_no_arch_and_answers_alike(weights_file: Path, tmp_path: Path) -> None:
    first = formats.load(weights_file, arch="resnet8-cifar", mean=[0.1, 0.2, 0.3], std=[0.5])
    path = formats.save(first, tmp_path / "out")
    second = formats.load(path)
    x = torch.rand(3, 3, 32, 32)
    assert torch.equal(first.module(x), second.module(x))
    assert (second.arch, second.inputs, second.num_classes) == (first.arch, first.inputs, 7)
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]
    assert formats.load(path.parent).digest == second.digest


def test_planted_mark_is_never_lost(weights_file: Path, tmp_path: Path) -> None:
    artifact = formats.load(
        formats.save(formats.load(weights_file, arch="resnet8-cifar"), tmp_path / "a", planted="badnets")
    )
    assert artifact.planted == "badnets"
    assert formats.load(formats.save(artifact, tmp_path / "b")).planted == "badnets"
    assert formats.load(formats.save(artifact, tmp_path / "c", planted="blended")).planted == "badnets; blended"


def test_mean_and_std_override_the_architectures_own(weights_file: Path) -> None:
    net = formats.load(weights_file, arch="resnet8-cifar", mean=(0, 0, 0), std=(1, 1, 1)).module
    assert isinstance(net, Normalized)
    assert net.mean.flatten().tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("mean", "std", "says"),
    [
        ([0.5], None, "go together"),
        ([0.5], [0.0], "positive"),
        ([0.5, 0.5], [1.0, 1.0], "1 or 3 values"),
        ([float("nan")], [1.0], "finite"),
    ],
)
def test_unusable_normalizations(weights_file: Path, mean: list[float], std: list[float] | None, says: str) -> None:
    with pytest.raises(UnusableInput, match=says):
        formats.load(weights_file, arch="resnet8-cifar", mean=mean, std=std)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.module."])
def test_common_prefixes_are_taken_off(weights_file: Path, tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "prefixed.safetensors"
    save_file({prefix + name: tensor for name, tensor in load_file(weights_file).items()}, path)
    assert formats.load(path, arch="resnet8-cifar").num_classes == 7


def test_missing_arch_lists_the_known_ones(weights_file: Path) -> None:
    with pytest.raises(UnusableInput, match=r"--arch is needed.*resnet20-cifar.*package\.module:function"):
        formats.load(weights_file)


def test_unknown_arch(weights_file: Path) -> None:
    with pytest.raises(UnusableInput, match=r"unknown --arch resnet9000"):
        formats.load(weights_file, arch="resnet9000")


def test_wrong_arch_names_tensors(weights_file: Path) -> None:
    with pytest.raises(UnusableInput, match=r"resnet14-cifar.*missing: layer1\.1\.conv1\.weight"):
        formats.load(weights_file, arch="resnet14-cifar")
    with pytest.raises(
        UnusableInput, match=r"of another shape: conv1\.weight \(expected \[64, 3, 3, 3\], came \[16, 3"
    ):
        formats.load(weights_file, arch="resnet18-cifar")


def test_whole_numbers_where_floats_belong(weights_file: Path, tmp_path: Path) -> None:
    tensors = load_file(weights_file)
    tensors["linear.weight"] = tensors["linear.weight"].to(torch.int8)
    save_file(tensors, tmp_path / "int.safetensors")
    with pytest.raises(UnusableInput, match=r"of another type: linear\.weight"):
        formats.load(tmp_path / "int.safetensors", arch="resnet8-cifar")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(weights_file: Path, tmp_path: Path, value: float) -> None:
    tensors = load_file(weights_file)
    tensors["linear.bias"][2] = value
    save_file(tensors, tmp_path / "nan.safetensors")
    with pytest.raises(UnusableInput, match=r"linear\.bias.*NaN or infinite"):
        formats.load(tmp_path / "nan.safetensors", arch="resnet8-cifar")


@pytest.mark.parametrize("keep", [0, 5, 100, -1000])
def test_truncated_file(weights_file: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(weights_file.read_bytes()[:keep])
    with pytest.raises(UnusableInput, match="truncated"):
        formats.load(path, arch="resnet8-cifar")


def test_header_larger_than_the_file(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match="its header should have"):
        formats.load(write_raw(tmp_path / "h.safetensors", {}, length=2**60), arch="resnet8-cifar")


def test_header_larger_than_allowed(tmp_path: Path) -> None:
    path = tmp_path / "h.safetensors"
    with path.open("wb") as file:
        file.write((2**25).to_bytes(8, "little"))
        file.truncate(2**25 + 8)  # sparse
    with pytest.raises(UnusableInput, match="header of at most"):
        formats.load(path, arch="resnet8-cifar")


def entry(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"a": entry(data_offsets=[0, 800], shape=[200])}, "ends at byte 800"),
        ({"a": entry(data_offsets=[0, 4])}, "does not fit its 4 bytes"),
        ({"a": entry(data_offsets=[-8, 0])}, "malformed"),
        ({"a": entry(shape=[2.0])}, "malformed"),
        ({"a": entry(shape=[-2])}, "malformed"),
        ({"a": entry(dtype="EVIL")}, "malformed"),
        ({"a": entry(dtype=["F32"])}, "malformed"),
        ({"a": 7}, "malformed"),
        ({"a": entry(), "b": entry()}, "not a valid safetensors file"),
        ({"__metadata__": {"x": 1}, "a": entry()}, "text values"),
        ({"__metadata__": {}}, "holds none"),
        ([], "JSON object"),
    ],
)
def test_hostile_headers(tmp_path: Path, header: object, says: str) -> None:
    with pytest.raises(UnusableInput, match=says):
        formats.load(write_raw(tmp_path / "h.safetensors", header, bytes(8)), arch="resnet8-cifar")


@pytest.mark.parametrize("raw", [b"{", b"\xff\xfe", b"[" * 100_000])
def test_header_that_is_not_json(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "h.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    with pytest.raises(UnusableInput, match="not valid JSON"):
        formats.load(path, arch="resnet8-cifar")


@pytest.mark.parametrize(
    "metadata",
    [
        {"assay.shape": "[3, 32]"},
        {"assay.shape": "[3, 32, 1000000]"},
        {"assay.shape": "nonsense"},
        {"assay.mean": "[0.5]"},
        {"assay.mean": '"x"', "assay.std": '"x"'},
        {"assay.class_names": "3"},
        {"assay.shape": "[3, 32, 32]", "assay.pictures": '{"resample": "evil"}'},
        {"assay.shape": "[3, 32, 32]", "assay.pictures": '{"resize": [1]}'},
        {"assay.shape": "[3, 32, 32]", "assay.pictures": "[1]"},
    ],
)
def test_hostile_metadata(weights_file: Path, tmp_path: Path, metadata: dict[str, str]) -> None:
    save_file(load_file(weights_file), tmp_path / "m.safetensors", metadata=metadata)
    with pytest.raises(UnusableInput):
        formats.load(tmp_path / "m.safetensors", arch="resnet8-cifar")


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "pytorch_model.bin", "m.ckpt", "m.pkl"])
def test_pickles_are_refused_unopened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    with pytest.raises(UnusableInput, match=r"never opened; convert it .*save_file"):
        formats.load(tmp_path / name)


def test_what_torch_cannot_convert_either_is_refused_with_other_advice(tmp_path: Path) -> None:
    (tmp_path / "m.h5").write_bytes(b"")
    with pytest.raises(UnusableInput, match=r"never opened; export it to \.safetensors or \.onnx"):
        formats.load(tmp_path / "m.h5")


@pytest.mark.parametrize("name", ["nothing.safetensors", "models/nothing.onnx", "nothing"])
def test_missing_file(name: str) -> None:
    with pytest.raises(UnusableInput, match="no such model"):
        formats.load(name)


def test_file_that_cannot_be_read() -> None:
    with pytest.raises(UnusableInput, match="cannot read"):
        formats.load(f"{'x' * 5000}.safetensors")


def test_other_files_and_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("")
    with pytest.raises(UnusableInput, match=r"came a \.txt file"):
        formats.load(tmp_path / "model.txt")
    with pytest.raises(UnusableInput, match=r"expected a config\.json or exactly one"):
        formats.load(tmp_path)


def test_nothing_is_left_where_writing_fails(weights_file: Path, tmp_path: Path) -> None:
    artifact = formats.load(weights_file, arch="resnet8-cifar")
    blocked = tmp_path / "out"
    (blocked / "model.safetensors").mkdir(parents=True)  # a folder stands where the file should go
    with pytest.raises(UnusableInput, match="nothing was written"):
        formats.save(artifact, blocked)
    assert [path.name for path in blocked.iterdir()] == ["model.safetensors"]
