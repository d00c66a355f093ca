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
from assay.graphs.fx import folded_graph
from assay.nn.log_probs import LogProbabilities
from assay.stages.export import argmax_agreement, to_onnx_int8
from assay.stages.quantize import FakeQuantize, QuantizeInt8, int8_twin, rounded_int8
from assay.stages.recalibrate import recalibrated


@pytest.fixture
def x() -> Tensor:
    return torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def pictures(file: Path, count: int) -> Tensor:
    cells = pq.read_table(file)["img"].slice(0, count).to_pylist()
    arrays = [np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB")) for cell in cells]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float().div(255).contiguous()


def test_folding_keeps_the_outputs_and_leaves_no_batch_norm(x: Tensor) -> None:
    net = tiny_net()
    before = digest_of_module(net)
    folded = folded_graph(net, x)
    assert torch.allclose(folded(x), net(x), atol=1e-4)
    assert folded(x[:1]).shape == (1, 4)
    assert "batch_norm" not in folded.code
    assert not any("running_mean" in name for name in folded.state_dict())
    assert digest_of_module(net) == before


def test_folding_leaves_a_batch_norm_that_stands_alone() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).eval()
    net[0].running_mean.fill_(0.3)
    x = torch.rand(16, 3, 8, 8)
    assert torch.allclose(folded_graph(net, x)(x), net(x), atol=1e-5)
    twin = int8_twin(net, x, per_channel=True)
    assert (twin(x) - net(x)).abs().max() < 0.1


def test_a_net_of_channels_last_weights_that_flattens_its_features(x: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)).eval()
    net.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(folded_graph(net, x)(x), net(x), atol=1e-5)
    assert (int8_twin(net, x, per_channel=True)(x) - net(x)).abs().max() < 0.1


def test_a_net_whose_own_names_are_those_of_folded_weights(x: Tensor) -> None:
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


def test_the_logarithm_of_a_softmax_is_one_operator_that_keeps_its_gradients(x: Tensor) -> None:
    net = tiny_net()
    soft = LogProbabilities(nn.Sequential(net, nn.Softmax(1))).eval()
    folded = folded_graph(soft, x)
    assert "log_softmax" in folded.code
    assert torch.allclose(folded(x), net(x).log_softmax(1), atol=1e-4)
    twin = int8_twin(soft, x, per_channel=True)
    assert (twin(x).argmax(1) == net(x).argmax(1)).float().mean() > 0.9


def test_what_cannot_be_traced_is_refused(x: Tensor) -> None:
    class Moody(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) if float(x.sum()) > 0 else -x.flatten(1)

    with pytest.raises(UnusableInput, match=r"torch\.export can trace"):
        folded_graph(Moody(), x)


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_twin_is_close_to_the_net_and_to_the_file(x: Tensor, per_channel: bool, tmp_path: Path) -> None:
    build = tiny_build()
    twin = int8_twin(build.artifact.module, x, per_channel=per_channel)
    full = build.artifact.module(x)
    to_onnx_int8(build.artifact, x, tmp_path / "int8.onnx", per_channel=per_channel)
    deployed = load(tmp_path / "int8.onnx").module
    assert 0 < (twin(x) - full).abs().mean() < 0.1 * full.abs().max()
    # At most one in a hundred logits is a step of 1/255 of the range away: summed in another order, rounded elsewhere.
    assert ((twin(x) - deployed(x)).abs() > 1e-4).float().mean() <= 0.01
    assert argmax_agreement(twin, deployed, x) >= 0.98


def test_the_twin_has_gradients_to_its_input_and_is_a_module_like_any_other(x: Tensor) -> None:
    net = tiny_net()
    twin = int8_twin(net, x, per_channel=True)
    slopes = []
    for model in (net, twin):
        inputs = x.clone().requires_grad_()
        model(inputs).square().sum().backward()
        assert inputs.grad is not None
        slopes.append(inputs.grad.flatten())
    assert torch.cosine_similarity(slopes[0], slopes[1], dim=0) > 0.8
    assert torch.equal(copy.deepcopy(twin).train().eval()(x), twin(x))
    assert twin(x[:1]).shape == (1, 4)
    assert twin(torch.zeros(3, 3, 8, 8)).isfinite().all()


def test_the_twin_depends_on_its_calibration_data(x: Tensor) -> None:
    net = tiny_net()
    first, again, other = (int8_twin(net, data, per_channel=True) for data in (x, x.clone(), x * 0.5))
    assert digest_of_module(first) == digest_of_module(again) != digest_of_module(other)


@given(low=st.floats(-10, 10), span=st.floats(0.01, 20))
def test_fake_quantization_rounds_and_differentiates_as_torch_does(low: float, span: float) -> None:
    quantizer = FakeQuantize(low, low + span)
    inputs = torch.linspace(low - span, low + 2 * span, 501).requires_grad_()
    seen = quantizer(inputs)
    expected = torch.fake_quantize_per_tensor_affine(inputs, quantizer.scale, quantizer.zero_point, 0, 255)
    # The two divide differently, so that a value in the middle between two levels may go to either.
    assert ((seen - expected).abs() > 1e-4 * span).float().mean() < 0.05
    assert (seen - expected).abs().max() < 1.01 * quantizer.scale
    slopes = [torch.autograd.grad(output.sum(), inputs)[0] for output in (seen, expected)]
    assert (slopes[0] != slopes[1]).float().mean() < 0.05
    assert (quantizer(torch.zeros(3)) == 0).all()


@pytest.mark.parametrize("channel", [None, 0])
def test_rounded_weights_are_multiples_of_their_scale(channel: int | None) -> None:
    weight = torch.randn(8, 4, 3, 3)
    weight[0] = 0  # a pruned filter must not divide by zero
    rounded, scale = rounded_int8(weight, channel)
    levels = rounded / scale
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    assert levels.abs().max() <= 127 + 1e-3
    assert bool(((rounded - weight).abs() <= scale / 2 + 1e-6).all())
    assert (rounded[0] == 0).all()


def test_the_stage(x: Tensor) -> None:
    build = tiny_build(planted="badnets")
    after = QuantizeInt8(per_channel=False, samples=32)(build, seed=0)
    assert after.history == ("int8-per-tensor",)
    assert after.artifact.planted == "badnets"
    assert after.artifact.arch is None
    assert after.artifact.digest != build.artifact.digest
    with pytest.raises(UnusableInput, match="takes clean samples"):
        int8_twin(build.artifact.module, x[:0], per_channel=True)


def test_one_picture_calibrates_as_the_same_picture_again(x: Tensor) -> None:
    net = tiny_build().artifact.module
    with torch.no_grad():
        one, three = (int8_twin(net, part, per_channel=True)(x) for part in (x[:1], x[:1].repeat(3, 1, 1, 1)))
        assert torch.equal(one, three)
        assert not torch.equal(one, int8_twin(net, x, per_channel=True)(x))


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_twin_of_a_real_net_agrees_with_its_file(shared: Path, per_channel: bool, tmp_path: Path) -> None:
    full = load(shared / "models" / "resnet20-cifar10" / "model.safetensors", arch="resnet20-cifar")
    clean = pictures(shared / "data" / "cifar10" / "train-00000-of-00001.parquet", 256)
    test = pictures(shared / "data" / "cifar10" / "test-00000-of-00001.parquet", 500)
    twin = int8_twin(full.module, clean, per_channel=per_channel)
    to_onnx_int8(full, clean, tmp_path / "int8.onnx", per_channel=per_channel)
    assert argmax_agreement(twin, load(tmp_path / "int8.onnx").module, test) >= 0.99


def test_the_artifact_of_an_onnx_file_is_refused() -> None:
    net = tiny_net()
    artifact = Artifact(net, Modality.IMAGE, 4, "onnx", "", ImageSpec((3, 8, 8)), differentiable=False)
    build = tiny_build()
    with pytest.raises(UnusableInput, match="quantize its source"):
        QuantizeInt8()(type(build)(artifact, build.task), seed=0)


class Loud(nn.Module):
    """Overflows on bright pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((1e38 * torch.relu(1e38 * self.conv(x))).mean((2, 3)))


def test_values_that_overflow_are_named() -> None:
    with pytest.raises(UnusableInput, match="overflow on the clean samples"):
        int8_twin(Loud().eval(), torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), per_channel=True)


def test_a_last_picture_alone_is_no_batch() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 8), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2)).eval()
    x = torch.rand(129, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    means = recalibrated(net, x)[1].running_mean
    assert torch.allclose(means, net[0](x).mean((0, 2, 3)), atol=1e-5)
