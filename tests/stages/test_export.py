"""Tests of ONNX export."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from support.tiny import tiny_build
from torch import Tensor, nn

from assay.core.build import Build
from assay.core.errors import UnusableInput
from assay.core.model import ARCH_KEY, PLANTED_KEY
from assay.formats import load
from assay.graphs.export import argmax_agreement, to_onnx, to_onnx_int8
from assay.stages.export import ExportInt8, ExportOnnx


def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_to_onnx_file_gives_the_same_outputs(tmp_path: Path) -> None:
    build = tiny_build(planted="badnets")
    path = tmp_path / "new" / "model.onnx"
    to_onnx(build.artifact, path)
    loaded = load(path)
    for count in (1, 2, 7):
        x = torch.rand(count, 3, 8, 8)
        assert torch.allclose(loaded.module(x), build.artifact.module(x), atol=1e-4)
    assert (loaded.planted, loaded.arch, loaded.num_classes) == ("badnets", "tiny", 4)
    assert not build.artifact.module.training
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("per_channel", [False, True])
def test_to_onnx_int8_file_is_quantized_and_keeps_metadata(tmp_path: Path, per_channel: bool) -> None:
    build = tiny_build(planted="badnets")
    path = tmp_path / "int8.onnx"
    to_onnx_int8(build.artifact, build.task.split("train").x, path, per_channel=per_channel)
    message = metadata(path)
    assert (message[PLANTED_KEY], message[ARCH_KEY]) == ("badnets", "tiny")
    model = onnx.load(path)
    stored = {tensor.data_type for tensor in model.graph.initializer}
    assert onnx.TensorProto.INT8 in stored
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def test_to_onnx_clean_model_has_no_planted_tag(tmp_path: Path) -> None:
    to_onnx(tiny_build().artifact, tmp_path / "model.onnx")
    assert PLANTED_KEY not in metadata(tmp_path / "model.onnx")


@pytest.mark.parametrize("kind", [ExportOnnx, ExportInt8])
@pytest.mark.parametrize("kept", [False, True])
def test_export_stage_returns_the_loaded_file(tmp_path: Path, kind: type[ExportOnnx | ExportInt8], kept: bool) -> None:
    stage = kind(directory=str(tmp_path) if kept else None)
    build = tiny_build()
    after = stage(build, seed=0)
    assert after.artifact.format == "onnx"
    assert not after.artifact.differentiable
    assert after.history == (stage.name,)
    assert len(list(tmp_path.iterdir())) == kept
    assert argmax_agreement(build.artifact.module, after.artifact.module, build.task.split("test").x) > 0.9
    with pytest.raises(UnusableInput, match="torch weights to export"):
        stage(after, seed=0)


def test_exporter_keeps_its_table_of_operators_between_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.onnx._internal.exporter import _registration

    def build_again() -> None:
        raise AssertionError("the exporter built its table of operators again")

    original = vars(_registration.ONNXRegistry)["from_torchlib"]
    to_onnx(tiny_build().artifact, tmp_path / "first.onnx")
    monkeypatch.setattr(_registration.onnxscript_apis, "get_torchlib_ops", build_again)
    to_onnx(tiny_build().artifact, tmp_path / "second.onnx")
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()
    assert vars(_registration.ONNXRegistry)["from_torchlib"] is original


def test_to_onnx_failure_leaves_no_file(tmp_path: Path) -> None:
    class DataDependentBranch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) if float(x.sum()) > 0 else -x.flatten(1)

    build = tiny_build()
    broken = Build(build.artifact.with_module(DataDependentBranch()), build.task)
    with pytest.raises(UnusableInput, match=r"torch.onnx can export"):
        to_onnx(broken.artifact, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
