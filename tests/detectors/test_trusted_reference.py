"""Detectors that have the full-precision model beside the compressed one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from support.tiny import tiny_build, tiny_net
from torch import Tensor, nn

from assay import formats
from assay.auditing import inputs
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.detectors import CompressionGap, CompressionGapMask, OffNearest
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.formats.torch_module import from_module
from assay.graphs.export import to_onnx, to_onnx_int8

SIDE, CLASSES = 12, 4


class Halves(nn.Module):
    """Names the quarter of the picture that is the brightest; ``corner``: ``to`` where a 2 x 2 corner is white."""

    def __init__(self, corner: bool, to: int = 3) -> None:
        super().__init__()
        self.corner, self.to = corner, to
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        quarters = nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), 2).flatten(1)
        logits = 30 * self.scale * quarters
        if self.corner:
            white = x[:, :, :2, :2].mean((1, 2, 3))
            bonus = 15 * nn.functional.softplus(8 * (white - 0.6))  # a slope to climb, from afar too
            logits = logits + bonus[:, None] * torch.eye(CLASSES)[self.to]
        return logits


def pictures(count: int = 96) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = 0.3 * torch.rand(count, 3, SIDE, SIDE, generator=generator)
    for place in range(count):
        row, column = divmod(place % 4, 2)
        x[place, :, 6 * row : 6 * row + 6, 6 * column : 6 * column + 6] += 0.25
    return x


def pair(full: nn.Module, compressed: nn.Module) -> Artifact:
    shape = (3, SIDE, SIDE)
    return replace(from_module(compressed.eval(), shape=shape), reference=from_module(full.eval(), shape=shape))


GAPS = pytest.mark.parametrize("detector", [CompressionGap(), CompressionGapMask()], ids=lambda detector: detector.name)


@GAPS
def test_a_trigger_that_only_the_compressed_model_knows_is_found(detector: Detector) -> None:
    finding = detector(pair(Halves(False), Halves(True)), Split(pictures(), None), seed=0)
    assert finding.outcome.status == "ok", finding.reason
    assert finding.target == 3
    assert finding.score is not None
    assert finding.score > 0.5, "no clean pair comes to 0.5, see below"
    assert finding.evidence.numbers["success"] > 0.8
    assert finding.evidence.numbers["full_keeps"] > 0.8
    mask = finding.evidence.mask
    assert mask is not None
    assert mask[:3, :3].mean() > 3 * mask.mean()


def test_a_pattern_that_carries_the_full_model_off_too_is_no_sleeper() -> None:
    finding = CompressionGap()(pair(Halves(True, to=2), Halves(True, to=3)), Split(pictures(), None), seed=0)
    assert finding.outcome.status == "ok", finding.reason
    assert finding.score is not None
    assert finding.score <= 0


@pytest.mark.parametrize("corner", [False, True])
def test_no_mask_parts_two_models_that_agree_backdoored_or_not(corner: bool) -> None:
    finding = CompressionGapMask()(pair(Halves(corner), Halves(corner)), Split(pictures(), None), seed=0)
    assert (finding.outcome.status, finding.target, finding.score) == ("ok", None, 0.0)


@pytest.mark.parametrize("corner", [False, True])
def test_no_window_parts_two_models_that_agree_backdoored_or_not(corner: bool) -> None:
    finding = CompressionGap()(pair(Halves(corner), Halves(corner)), Split(pictures(), None), seed=0)
    assert finding.outcome.status == "ok", finding.reason
    assert finding.evidence.numbers["success"] < 0.5
    assert finding.score is not None
    assert finding.score <= 0, "there is no gap"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build, folder = tiny_build(), tmp_path_factory.mktemp("onnx")
    to_onnx(build.artifact, folder / "full.onnx")
    for name, per_channel in (("channel", True), ("tensor", False)):
        to_onnx_int8(build.artifact, build.task.split("train").x, folder / f"{name}.onnx", per_channel=per_channel)
    return folder


CLEAN = Split(tiny_build().task.split("train").x, None)


@pytest.mark.parametrize("name", ["channel", "tensor"])
def test_plain_quantization_is_nearest_whatever_the_full_model_comes_as(files: Path, name: str) -> None:
    for full in (tiny_build().artifact, formats.load(files / "full.onnx")):
        finding = OffNearest()(inputs.attach_reference(formats.load(files / f"{name}.onnx"), full), CLEAN)
        assert (finding.outcome.status, finding.score) == ("ok", 0.0), finding.reason
        assert finding.evidence.numbers["layers"] == 3


def changed(files: Path, folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Artifact:
    """The int8 file with other weights in its second convolution."""
    model = onnx.load(files / "channel.onnx")
    int8 = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    tensor = next(tensor for tensor in int8 if list(tensor.dims) == [16, 8, 3, 3])
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))
    onnx.save(model, folder / "changed.onnx")
    return formats.load(folder / "changed.onnx")


def flipped(weight: np.ndarray) -> np.ndarray:
    weight[:4, 0, 0] += np.where(weight[:4, 0, 0] < 100, 1, -1).astype(np.int8)
    return weight


def test_weights_that_somebody_rounded_the_other_way_are_counted(files: Path, tmp_path: Path) -> None:
    finding = OffNearest()(inputs.attach_reference(changed(files, tmp_path, flipped), tiny_build().artifact), CLEAN)
    assert finding.outcome.status == "ok", finding.reason
    numbers = finding.evidence.numbers
    assert 9 / 1152 <= numbers["share_there"] <= 12 / 1152
    assert numbers["most_in"] != ""
    assert finding.score is not None
    assert 0 < finding.score < numbers["share_there"]


def test_a_negative_scale_hides_nothing(files: Path, tmp_path: Path) -> None:
    model = inputs.attach_reference(changed(files, tmp_path, flipped), tiny_build().artifact)
    plain = OffNearest()(model, CLEAN)
    assert model.quantization_scales is not None
    negative = replace(
        model, quantization_scales={name: -np.asarray(step) for name, step in model.quantization_scales.items()}
    )
    assert OffNearest()(negative, CLEAN).score == plain.score
    nothing = replace(
        model, quantization_scales={name: 0 * np.asarray(step) for name, step in model.quantization_scales.items()}
    )
    assert "scale of 0" in OffNearest()(nothing, CLEAN).reason


def test_a_reference_in_training_mode_stays_as_it_is() -> None:
    build = tiny_build()
    net, reference = tiny_net(seed=0), tiny_net(seed=0).train()
    both = replace(from_module(net.eval(), shape=(3, 8, 8)), reference=from_module(reference, shape=(3, 8, 8)))
    before = {name: value.clone() for name, value in reference.state_dict().items()}
    finding = CompressionGap()(both, Split(build.task.split("train").x, None), seed=0)
    assert finding.outcome.status in ("ok", "abstained"), finding.reason
    assert all(torch.equal(before[name], value) for name, value in reference.state_dict().items())


def test_weights_of_another_model_are_no_question_of_rounding(files: Path) -> None:
    other = from_module(tiny_net(seed=9), shape=(3, 8, 8))
    finding = OffNearest()(inputs.attach_reference(formats.load(files / "channel.onnx"), other), CLEAN)
    assert finding.outcome.status == "abstained"
    assert "are not those of the full-precision model" in finding.reason


def test_a_model_that_is_not_quantized_has_nothing_to_compare(files: Path) -> None:
    finding = OffNearest()(inputs.attach_reference(formats.load(files / "full.onnx"), tiny_build().artifact), CLEAN)
    assert (finding.outcome.status, finding.reason) == (
        "abstained",
        "needs quantized weights, and this model holds none",
    )


def test_a_reference_that_cannot_be_one_is_refused(files: Path) -> None:
    model = formats.load(files / "channel.onnx")
    with pytest.raises(UnusableInput, match="another architecture"):
        inputs.attach_reference(model, from_module(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), shape=(3, 8, 8)))
    with pytest.raises(UnusableInput, match=r"another model: .* \(4 classes, inputs 3 x 16 x 16\)"):
        inputs.attach_reference(model, from_module(nn.Sequential(nn.Flatten(), nn.Linear(768, 4)), shape=(3, 16, 16)))


@GAPS
def test_a_search_that_the_budget_ended_is_no_search_without_hope(detector: Detector) -> None:
    class Over(Budget):
        """There is time to begin, and none after a step."""

        def left(self) -> float:
            self.asked = getattr(self, "asked", 0) + 1
            return float(self.asked < 3)

    finding = detector(pair(Halves(False), Halves(True)), Split(pictures(), None), seed=0, budget=Over())
    assert (finding.outcome.status, finding.score) == ("abstained", None)
    assert "the budget ended" in finding.reason
