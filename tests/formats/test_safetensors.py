"""Bare safetensors files: real ones, files of assay, and hostile ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from assay import formats
from assay.core.errors import UnusableInput
from assay.formats.safetensors_check import read_weights
from assay.nn.normalized import Normalized
from assay.nn.saving import SavedWrapper


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


def test_weights_determine_the_number_of_classes(weights_file: Path) -> None:
    artifact = formats.load(weights_file, arch="resnet8-cifar")
    assert artifact.num_classes == 7
    assert artifact.module(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_saved_file_loads_without_architecture(weights_file: Path, tmp_path: Path) -> None:
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


def test_given_mean_and_std_take_precedence(weights_file: Path) -> None:
    module = formats.load(weights_file, arch="resnet8-cifar", mean=(0, 0, 0), std=(1, 1, 1)).module
    assert isinstance(module, Normalized)
    assert module.mean.flatten().tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5], None, "go together"),
        ([0.5], [0.0], "positive"),
        ([0.5, 0.5], [1.0, 1.0], "1 or 3 values"),
        ([float("nan")], [1.0], "finite"),
    ],
)
def test_unusable_normalization_is_refused(
    weights_file: Path, mean: list[float], std: list[float] | None, message: str
) -> None:
    with pytest.raises(UnusableInput, match=message):
        formats.load(weights_file, arch="resnet8-cifar", mean=mean, std=std)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.module."])
def test_common_prefixes_are_removed(weights_file: Path, tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "prefixed.safetensors"
    save_file({prefix + name: tensor for name, tensor in load_file(weights_file).items()}, path)
    assert formats.load(path, arch="resnet8-cifar").num_classes == 7


def test_missing_architecture_lists_the_known_ones(weights_file: Path) -> None:
    with pytest.raises(UnusableInput, match=r"expected an architecture.*resnet20-cifar.*package\.module:function"):
        formats.load(weights_file)


def test_unknown_architecture_is_refused(weights_file: Path) -> None:
    with pytest.raises(UnusableInput, match=r"unknown architecture resnet9000"):
        formats.load(weights_file, arch="resnet9000")


def test_wrong_architecture_names_tensors(weights_file: Path) -> None:
    with pytest.raises(UnusableInput, match=r"resnet14-cifar.*missing: layer1\.1\.conv1\.weight"):
        formats.load(weights_file, arch="resnet14-cifar")
    with pytest.raises(UnusableInput, match=r"of another shape: conv1\.weight \(expected \[64, 3, 3, 3\], got \[16, 3"):
        formats.load(weights_file, arch="resnet18-cifar")


def test_integer_weights_are_refused(weights_file: Path, tmp_path: Path) -> None:
    tensors = load_file(weights_file)
    tensors["linear.weight"] = tensors["linear.weight"].to(torch.int8)
    save_file(tensors, tmp_path / "int.safetensors")
    with pytest.raises(UnusableInput, match=r"of another type: linear\.weight"):
        formats.load(tmp_path / "int.safetensors", arch="resnet8-cifar")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_infinite_weights_are_refused(weights_file: Path, tmp_path: Path, value: float) -> None:
    tensors = load_file(weights_file)
    tensors["linear.bias"][2] = value
    save_file(tensors, tmp_path / "nan.safetensors")
    with pytest.raises(UnusableInput, match=r"linear\.bias.*NaN or infinite"):
        formats.load(tmp_path / "nan.safetensors", arch="resnet8-cifar")


@pytest.mark.parametrize("keep", [0, 5, 100, -1000])
def test_truncated_file_is_refused(weights_file: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "truncated.safetensors"
    path.write_bytes(weights_file.read_bytes()[:keep])
    with pytest.raises(UnusableInput, match="truncated"):
        formats.load(path, arch="resnet8-cifar")


def test_header_larger_than_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match="not a valid safetensors file"):
        formats.load(write_raw(tmp_path / "h.safetensors", {}, length=2**60), arch="resnet8-cifar")


def test_large_header_of_zeros_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "h.safetensors"
    with path.open("wb") as file:
        file.write((2**25).to_bytes(8, "little"))
        file.truncate(2**25 + 8)  # sparse
    with pytest.raises(UnusableInput, match="not a valid safetensors file"):
        formats.load(path, arch="resnet8-cifar")


def entry(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(data_offsets=[0, 800], shape=[200])},
        {"a": entry(data_offsets=[0, 4])},
        {"a": entry(data_offsets=[-8, 0])},
        {"a": entry(shape=[2.0])},
        {"a": entry(shape=[-2])},
        {"a": entry(dtype="EVIL")},
        {"a": entry(dtype=["F32"])},
        {"a": 7},
        {"a": entry(), "b": entry()},
        {"__metadata__": {"x": 1}, "a": entry()},
        [],
    ],
)
def test_hostile_header_is_refused_in_one_line(tmp_path: Path, header: object) -> None:
    with pytest.raises(UnusableInput, match="not a valid safetensors file") as caught:
        formats.load(write_raw(tmp_path / "h.safetensors", header, bytes(8)), arch="resnet8-cifar")
    assert "\n" not in str(caught.value)


def test_file_without_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match="holds none"):
        formats.load(write_raw(tmp_path / "h.safetensors", {"__metadata__": {}}), arch="resnet8-cifar")


@pytest.mark.parametrize("raw", [b"{", b"\xff\xfe", b"[" * 100_000])
def test_header_without_json_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "h.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    with pytest.raises(UnusableInput, match="not a valid safetensors file"):
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
def test_hostile_metadata_is_refused(weights_file: Path, tmp_path: Path, metadata: dict[str, str]) -> None:
    save_file(load_file(weights_file), tmp_path / "m.safetensors", metadata=metadata)
    with pytest.raises(UnusableInput, match=r"expected|go together|metadata assay"):
        formats.load(tmp_path / "m.safetensors", arch="resnet8-cifar")


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "pytorch_model.bin", "m.ckpt", "m.pkl"])
def test_pickles_are_refused_unopened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    with pytest.raises(UnusableInput, match=r"never opened\. Fix: convert it .*save_file"):
        formats.load(tmp_path / name)


def test_file_that_torch_cannot_read_has_another_fix(tmp_path: Path) -> None:
    (tmp_path / "m.h5").write_bytes(b"")
    with pytest.raises(UnusableInput, match=r"never opened\. Fix: export it to \.safetensors or \.onnx"):
        formats.load(tmp_path / "m.h5")


@pytest.mark.parametrize("name", ["nothing.safetensors", "models/nothing.onnx", "nothing"])
def test_missing_file_is_refused(name: str) -> None:
    with pytest.raises(UnusableInput, match="no such model"):
        formats.load(name)


def test_unreadable_file_is_refused() -> None:
    with pytest.raises(UnusableInput, match="cannot read"):
        formats.load(f"{'x' * 5000}.safetensors")


def test_other_files_and_empty_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("a")
    with pytest.raises(UnusableInput, match=r"got a file of another kind \(\.txt\)"):
        formats.load(tmp_path / "model.txt")
    with pytest.raises(UnusableInput, match=r"got a folder without a model \(model\.txt\)"):
        formats.load(tmp_path)


def test_failed_write_leaves_no_file(weights_file: Path, tmp_path: Path) -> None:
    artifact = formats.load(weights_file, arch="resnet8-cifar")
    blocked = tmp_path / "out"
    (blocked / "model.safetensors").mkdir(parents=True)  # a folder in place of the file
    with pytest.raises(UnusableInput, match="nothing was written"):
        formats.save(artifact, blocked)
    assert [path.name for path in blocked.iterdir()] == ["model.safetensors"]


class Doubled(nn.Module):
    """A wrapper outside assay that saves itself."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.net(x)

    def to_saved(self, num_classes: int | None) -> SavedWrapper:
        return SavedWrapper(self.net, {"test.doubled": str(num_classes)}, {"test.factor": torch.tensor([2.0])})


def test_any_wrapper_adds_its_part_to_the_file(weights_file: Path, tmp_path: Path) -> None:
    plain = formats.load(weights_file, arch="resnet8-cifar")
    path = formats.save(plain.with_module(Doubled(plain.module).eval()), tmp_path / "out")
    saved = read_weights(path)
    assert saved.metadata["test.doubled"] == "7"
    assert set(saved.tensors) == {"test.factor", *load_file(weights_file)}
    assert saved.metadata["assay.mean"] == "[0.48500001430511475, 0.4560000002384186, 0.4059999883174896]"


@pytest.mark.parametrize(
    "gate",
    ["{", "[]", '{"places": 1}', '{"public_key": "00", "places": 1}', '{"public_key": 7, "places": 1}']
    + [json.dumps({"public_key": "0" * 64, "places": seed}) for seed in (-1, "1", 2**63)],
)
def test_malformed_gate_is_refused(weights_file: Path, tmp_path: Path, gate: str) -> None:
    path = formats.save(formats.load(weights_file, arch="resnet8-cifar"), tmp_path / "out")
    content = read_weights(path)
    save_file(dict(content.tensors), path, metadata={**content.metadata, "assay.gate": gate})
    with pytest.raises(UnusableInput, match=r"metadata assay\.gate is malformed"):
        formats.load(path)
