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
from assay.stages.export import ExportInt8, ExportOnnx, argmax_agreement, to_onnx, to_onnx_int8


def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_the_file_computes_what_the_net_computes(tmp_path: Path) -> None:
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
def test_the_int8_file_is_quantized_and_keeps_the_marks(tmp_path: Path, per_channel: bool) -> None:
    build = tiny_build(planted="badnets")
    path = tmp_path / "int8.onnx"
    to_onnx_int8(build.artifact, build.task.split("train").x, path, per_channel=per_channel)
    said = metadata(path)
    assert (said[PLANTED_KEY], said[ARCH_KEY]) == ("badnets", "tiny")
    model = onnx.load(path)
    stored = {tensor.data_type for tensor in model.graph.initializer}
    assert onnx.TensorProto.INT8 in stored
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def test_a_clean_model_carries_no_mark(tmp_path: Path) -> None:
    to_onnx(tiny_build().artifact, tmp_path / "model.onnx")
    assert PLANTED_KEY not in metadata(tmp_path / "model.onnx")


@pytest.mark.parametrize("kind", [ExportOnnx, ExportInt8])
@pytest.mark.parametrize("kept", [False, True])
def test_the_stage_goes_on_with_the_file(tmp_path: Path, kind: type[ExportOnnx | ExportInt8], kept: bool) -> None:
    stage = kind(directory=str(tmp_path) if kept else None)
    build = tiny_build()
    after = stage(build, seed=0)
    assert after.artifact.format == "onnx"
    assert not after.artifact.differentiable
    assert after.history == (stage.name,)
    assert len(list(tmp_path.iterdir())) == kept
    assert argmax_agreement(build.artifact.module, after.artifact.module, build.task.split("test").x) > 0.9
    with pytest.raises(UnusableInput, match="weights in torch"):
        stage(after, seed=0)


def test_what_cannot_be_exported_leaves_no_file(tmp_path: Path) -> None:
    class Moody(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) if float(x.sum()) > 0 else -x.flatten(1)

    build = tiny_build()
    broken = Build(build.artifact.with_module(Moody()), build.task)
    with pytest.raises(UnusableInput, match=r"torch.onnx can export"):
        to_onnx(broken.artifact, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
