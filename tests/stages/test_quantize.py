"""Tests of quantization stages and of graph folding."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.tiny import tiny_build, tiny_net
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.core.model import Artifact, ImageSpec, Modality, digest_of_module
from assay.formats import load
from assay.graphs.export import argmax_agreement, to_onnx_int8
from assay.graphs.fx import folded_graph
from assay.nn.fake_quant import round_to_nearest
from assay.nn.log_probs import LogProbabilities
from assay.stages.quantize import FakeQuantize, QuantizeInt8, simulate_int8
from assay.stages.recalibrate import recalibrate_batchnorm

pytestmark = pytest.mark.slow


@pytest.fixture
def x() -> Tensor:
    return torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def load_images(file: Path, count: int) -> Tensor:
    cells = pq.read_table(file)["img"].slice(0, count).to_pylist()
    arrays = [np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB")) for cell in cells]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float().div(255).contiguous()


def test_folded_graph_keeps_outputs_and_has_no_batch_norm(x: Tensor) -> None:
    net = tiny_net()
    before = digest_of_module(net)
    folded = folded_graph(net, x)
    assert torch.allclose(folded(x), net(x), atol=1e-4)
    assert folded(x[:1]).shape == (1, 4)
    assert "batch_norm" not in folded.code
    assert not any("running_mean" in name for name in folded.state_dict())
    assert digest_of_module(net) == before


def test_folded_graph_keeps_a_batch_norm_without_convolution() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).eval()
    net[0].running_mean.fill_(0.3)
    x = torch.rand(16, 3, 8, 8)
    assert torch.allclose(folded_graph(net, x)(x), net(x), atol=1e-5)
    simulated = simulate_int8(net, x, per_channel=True)
    assert (simulated(x) - net(x)).abs().max() < 0.1


def test_folded_graph_channels_last_model_with_flatten(x: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)).eval()
    net.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(folded_graph(net, x)(x), net(x), atol=1e-5)
    assert (simulate_int8(net, x, per_channel=True)(x) - net(x)).abs().max() < 0.1


def test_folded_graph_model_with_colliding_names(x: Tensor) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
            self.conv2d_weight = nn.Parameter(torch.rand(144))
            self.conv2d_bias = nn.Linear(144, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv2d_bias(self.body(x) * self.conv2d_weight)

    net = Named().eval()
    assert torch.allclose(folded_graph(net, x)(x), net(x), atol=1e-4)


def test_folded_graph_joins_log_and_softmax(x: Tensor) -> None:
    net = tiny_net()
    soft = LogProbabilities(nn.Sequential(net, nn.Softmax(1))).eval()
    folded = folded_graph(soft, x)
    assert "log_softmax" in folded.code
    assert torch.allclose(folded(x), net(x).log_softmax(1), atol=1e-4)
    simulated = simulate_int8(soft, x, per_channel=True)
    assert (simulated(x).argmax(1) == net(x).argmax(1)).float().mean() > 0.9


def test_folded_graph_untraceable_model_raises(x: Tensor) -> None:
    class DataDependentBranch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) if float(x.sum()) > 0 else -x.flatten(1)

    with pytest.raises(UnusableInput, match=r"torch\.export can trace"):
        folded_graph(DataDependentBranch(), x)


@pytest.mark.parametrize("per_channel", [False, True])
def test_simulate_int8_is_close_to_model_and_file(x: Tensor, per_channel: bool, tmp_path: Path) -> None:
    build = tiny_build()
    simulated = simulate_int8(build.artifact.module, x, per_channel=per_channel)
    full = build.artifact.module(x)
    to_onnx_int8(build.artifact, x, tmp_path / "int8.onnx", per_channel=per_channel)
    deployed = load(tmp_path / "int8.onnx").module
    assert 0 < (simulated(x) - full).abs().mean() < 0.1 * full.abs().max()
    # At most 1 % of the logits differ, by one step of 1/255 of the range: another summation order changes a rounding.
    assert ((simulated(x) - deployed(x)).abs() > 1e-4).float().mean() <= 0.01
    assert argmax_agreement(simulated, deployed, x) >= 0.98


def test_simulate_int8_has_input_gradients_and_can_be_copied(x: Tensor) -> None:
    net = tiny_net()
    simulated = simulate_int8(net, x, per_channel=True)
    slopes = []
    for model in (net, simulated):
        inputs = x.clone().requires_grad_()
        model(inputs).square().sum().backward()
        assert inputs.grad is not None
        slopes.append(inputs.grad.flatten())
    assert torch.cosine_similarity(slopes[0], slopes[1], dim=0) > 0.8
    assert torch.equal(copy.deepcopy(simulated).train().eval()(x), simulated(x))
    assert simulated(x[:1]).shape == (1, 4)
    assert simulated(torch.zeros(3, 3, 8, 8)).isfinite().all()


def test_simulate_int8_depends_on_calibration_data(x: Tensor) -> None:
    net = tiny_net()
    first, again, other = (simulate_int8(net, data, per_channel=True) for data in (x, x.clone(), x * 0.5))
    assert digest_of_module(first) == digest_of_module(again) != digest_of_module(other)


@given(low=st.floats(-10, 10), span=st.floats(0.01, 20))
def test_fake_quantize_matches_torch(low: float, span: float) -> None:
    quantizer = FakeQuantize(low, low + span)
    inputs = torch.linspace(low - span, low + 2 * span, 501).requires_grad_()
    seen = quantizer(inputs)
    expected = torch.fake_quantize_per_tensor_affine(inputs, quantizer.scale, quantizer.zero_point, 0, 255)
    # The two divide differently: a value in the middle between two levels may go to either.
    assert ((seen - expected).abs() > 1e-4 * span).float().mean() < 0.05
    assert (seen - expected).abs().max() < 1.01 * quantizer.scale
    slopes = [torch.autograd.grad(output.sum(), inputs)[0] for output in (seen, expected)]
    assert (slopes[0] != slopes[1]).float().mean() < 0.05
    assert (quantizer(torch.zeros(3)) == 0).all()


def test_fake_quantize_gives_gradients_in_the_memory_format_of_its_input() -> None:
    # A mixture of formats makes all following steps backwards slow.
    inputs = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    (slope,) = torch.autograd.grad(FakeQuantize(-1, 1)(inputs).mean(), inputs)
    assert slope.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channel", [None, 0])
def test_round_to_nearest_gives_multiples_of_the_step(channel: int | None) -> None:
    weight = torch.randn(8, 4, 3, 3)
    weight[0] = 0  # a pruned filter must not divide by zero
    rounded, scale = round_to_nearest(weight, 8, channel)
    levels = rounded / scale
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    assert levels.abs().max() <= 127 + 1e-3
    assert bool(((rounded - weight).abs() <= scale / 2 + 1e-6).all())
    assert (rounded[0] == 0).all()


def test_quantize_int8_stage_sets_artifact_fields(x: Tensor) -> None:
    build = tiny_build(planted="badnets")
    after = QuantizeInt8(per_channel=False, samples=32)(build, seed=0)
    assert after.history == ("int8-per-tensor",)
    assert after.artifact.planted == "badnets"
    assert after.artifact.arch is None
    assert after.artifact.digest != build.artifact.digest
    with pytest.raises(UnusableInput, match="clean samples for int8 calibration"):
        simulate_int8(build.artifact.module, x[:0], per_channel=True)


def test_simulate_int8_single_image_equals_its_repetition(x: Tensor) -> None:
    net = tiny_build().artifact.module
    with torch.no_grad():
        one, three = (simulate_int8(net, part, per_channel=True)(x) for part in (x[:1], x[:1].repeat(3, 1, 1, 1)))
        assert torch.equal(one, three)
        assert not torch.equal(one, simulate_int8(net, x, per_channel=True)(x))


@pytest.mark.parametrize("per_channel", [False, True])
def test_simulate_int8_of_resnet20_agrees_with_its_file(shared: Path, per_channel: bool, tmp_path: Path) -> None:
    full = load(shared / "models" / "resnet20-cifar10" / "model.safetensors", arch="resnet20-cifar")
    clean = load_images(shared / "data" / "cifar10" / "train-00000-of-00001.parquet", 256)
    test = load_images(shared / "data" / "cifar10" / "test-00000-of-00001.parquet", 500)
    simulated = simulate_int8(full.module, clean, per_channel=per_channel)
    to_onnx_int8(full, clean, tmp_path / "int8.onnx", per_channel=per_channel)
    assert argmax_agreement(simulated, load(tmp_path / "int8.onnx").module, test) >= 0.99


def test_quantize_int8_onnx_model_raises() -> None:
    net = tiny_net()
    artifact = Artifact(net, Modality.IMAGE, 4, "onnx", "", ImageSpec((3, 8, 8)), differentiable=False)
    build = tiny_build()
    with pytest.raises(UnusableInput, match="quantize its source"):
        QuantizeInt8()(type(build)(artifact, build.task), seed=0)


class Overflowing(nn.Module):
    """Overflows on bright images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((1e38 * torch.relu(1e38 * self.conv(x))).mean((2, 3)))


def test_simulate_int8_overflow_raises() -> None:
    with pytest.raises(UnusableInput, match="overflow"):
        simulate_int8(
            Overflowing().eval(), torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), per_channel=True
        )


def test_recalibrate_batchnorm_joins_a_last_single_image() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 8), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2)).eval()
    x = torch.rand(129, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    means = recalibrate_batchnorm(net, x)[1].running_mean
    assert torch.allclose(means, net[0](x).mean((0, 2, 3)), atol=1e-5)
