"""Tests of the detectors that compare a compressed model with its original."""

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
from assay.core.finding import Outcome
from assay.core.model import Artifact
from assay.detectors import CompressionGap, CompressionGapMask, OffNearest
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.formats.torch_module import from_module
from assay.graphs.export import to_onnx, to_onnx_int8

pytestmark = pytest.mark.slow


SIDE, CLASSES = 12, 4


class Halves(nn.Module):
    """Model that predicts the brightest quarter; with ``corner``, class ``to`` for images with a white 2 x 2 corner."""

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
def test_trigger_of_the_compressed_model_only_is_found(detector: Detector) -> None:
    finding = detector(pair(Halves(False), Halves(True)), Split(pictures(), None), seed=0)
    assert finding.outcome is Outcome.SCORED, finding.reason
    assert finding.target == 3
    assert finding.score is not None
    assert finding.score > 0.5, "no clean pair comes to 0.5, see below"
    assert finding.evidence.numbers["success"] > 0.8
    assert finding.evidence.numbers["full_keeps"] > 0.8
    mask = finding.evidence.mask
    assert mask is not None
    assert mask[:3, :3].mean() > 3 * mask.mean()


def test_pattern_that_moves_both_models_gets_a_low_score() -> None:
    finding = CompressionGap()(pair(Halves(True, to=2), Halves(True, to=3)), Split(pictures(), None), seed=0)
    assert finding.outcome is Outcome.SCORED, finding.reason
    assert finding.score is not None
    assert finding.score <= 0


@pytest.mark.parametrize("corner", [False, True])
def test_mask_search_on_two_equal_models_scores_zero(corner: bool) -> None:
    finding = CompressionGapMask()(pair(Halves(corner), Halves(corner)), Split(pictures(), None), seed=0)
    assert (finding.outcome, finding.target, finding.score) == (Outcome.SCORED, None, 0.0)


@pytest.mark.parametrize("corner", [False, True])
def test_window_search_on_two_equal_models_scores_low(corner: bool) -> None:
    finding = CompressionGap()(pair(Halves(corner), Halves(corner)), Split(pictures(), None), seed=0)
    assert finding.outcome is Outcome.SCORED, finding.reason
    assert finding.score is not None
    assert finding.score <= 0, "there is no gap"
    numbers = finding.evidence.numbers
    if "full_keeps" in numbers:  # the search did not end early
        assert numbers["success"] + numbers["full_keeps"] == pytest.approx(1), "what moves one model moves the other"
    else:
        assert numbers["success"] < 0.5


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build, folder = tiny_build(), tmp_path_factory.mktemp("onnx")
    to_onnx(build.artifact, folder / "full.onnx")
    for name, per_channel in (("channel", True), ("tensor", False)):
        to_onnx_int8(build.artifact, build.task.split("train").x, folder / f"{name}.onnx", per_channel=per_channel)
    return folder


CLEAN = Split(tiny_build().task.split("train").x, None)


@pytest.mark.parametrize("name", ["channel", "tensor"])
def test_plain_quantization_is_nearest_for_every_reference_format(files: Path, name: str) -> None:
    for full in (tiny_build().artifact, formats.load(files / "full.onnx")):
        finding = OffNearest()(inputs.attach_reference(formats.load(files / f"{name}.onnx"), full), CLEAN)
        assert (finding.outcome, finding.score) == (Outcome.SCORED, 0.0), finding.reason
        assert finding.evidence.numbers["layers"] == 3


def changed(files: Path, folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Artifact:
    """Return the int8 file with changed weights in its second convolution."""
    model = onnx.load(files / "channel.onnx")
    int8 = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    tensor = next(tensor for tensor in int8 if list(tensor.dims) == [16, 8, 3, 3])
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))
    onnx.save(model, folder / "changed.onnx")
    return formats.load(folder / "changed.onnx")


def flipped(weight: np.ndarray) -> np.ndarray:
    weight[:4, 0, 0] += np.where(weight[:4, 0, 0] < 100, 1, -1).astype(np.int8)
    return weight


def test_weights_rounded_the_other_way_are_counted(files: Path, tmp_path: Path) -> None:
    finding = OffNearest()(inputs.attach_reference(changed(files, tmp_path, flipped), tiny_build().artifact), CLEAN)
    assert finding.outcome is Outcome.SCORED, finding.reason
    numbers = finding.evidence.numbers
    assert 9 / 1152 <= numbers["share_there"] <= 12 / 1152
    assert numbers["most_in"] != ""
    assert finding.score is not None
    assert 0 < finding.score < numbers["share_there"]


def test_negative_scale_gives_the_same_score(files: Path, tmp_path: Path) -> None:
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


def test_reference_in_training_mode_is_unchanged() -> None:
    build = tiny_build()
    net, reference = tiny_net(seed=0), tiny_net(seed=0).train()
    both = replace(from_module(net.eval(), shape=(3, 8, 8)), reference=from_module(reference, shape=(3, 8, 8)))
    before = {name: value.clone() for name, value in reference.state_dict().items()}
    finding = CompressionGap()(both, Split(build.task.split("train").x, None), seed=0)
    assert finding.outcome.status in ("ok", "abstained"), finding.reason
    assert all(torch.equal(before[name], value) for name, value in reference.state_dict().items())


def test_weights_of_another_model_are_an_abstention(files: Path) -> None:
    other = from_module(tiny_net(seed=9), shape=(3, 8, 8))
    finding = OffNearest()(inputs.attach_reference(formats.load(files / "channel.onnx"), other), CLEAN)
    assert finding.outcome is Outcome.ABSTAINED
    assert "are not a rounding of the original model" in finding.reason


def test_unquantized_model_is_an_abstention(files: Path) -> None:
    finding = OffNearest()(inputs.attach_reference(formats.load(files / "full.onnx"), tiny_build().artifact), CLEAN)
    assert (finding.outcome, finding.reason) == (
        Outcome.ABSTAINED,
        "needs quantized weights, and this model holds none",
    )


def test_unfit_reference_raises_an_error(files: Path) -> None:
    model = formats.load(files / "channel.onnx")
    with pytest.raises(UnusableInput, match="another architecture"):
        inputs.attach_reference(model, from_module(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), shape=(3, 8, 8)))
    with pytest.raises(UnusableInput, match=r"another model: .* \(4 classes, inputs 3 x 16 x 16\)"):
        inputs.attach_reference(model, from_module(nn.Sequential(nn.Flatten(), nn.Linear(768, 4)), shape=(3, 16, 16)))


@GAPS
def test_search_with_ended_budget_is_incomplete(detector: Detector) -> None:
    class Over(Budget):
        """Budget with time for one step."""

        def left(self) -> float:
            self.asked = getattr(self, "asked", 0) + 1
            return float(self.asked < 3)

    finding = detector(pair(Halves(False), Halves(True)), Split(pictures(), None), seed=0, budget=Over())
    assert (finding.outcome, finding.score) == (Outcome.INCOMPLETE, None)
    assert "the budget ended" in finding.reason
