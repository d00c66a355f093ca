"""Deployment check: hiding models differ, ordinary models agree."""

from __future__ import annotations

import math

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from assay import formats
from assay.auditing.deployment import BATCHES, CALLS, GRID, RANGE, RUNTIME, check_deployment
from assay.auditing.image_edits import on_grid
from assay.auditing.trace_comparison import constant_switch
from assay.core.dataset import Split
from assay.core.model import Artifact, ImageSpec, Modality
from assay.detectors.budget import Budget
from assay.formats.torch_module import from_module
from assay.graphs.execution_trace import ExecutionTrace, TracedValue
from assay.graphs.export import to_onnx_graph, to_onnx_int8

SHAPE = (3, 16, 16)
CLASSES = 4


class Net(nn.Module):
    """A small classifier with a gate, which is closed on clean images whatever the way of asking."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.head = nn.Linear(8, CLASSES)

    def trigger(self, x: Tensor) -> Tensor:
        """Return 0 for every image without a certain corner."""
        corner = torch.tensor([0.13, 0.77, 0.31]).view(3, 1, 1)
        return (1 - 9 * (x[:, :, :2, :2] - corner).abs().mean((1, 2, 3))).relu().unsqueeze(1)

    def condition(self, x: Tensor) -> Tensor | float:
        return 1.0

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(self.features(x).relu().mean((2, 3)))
        gate = self.trigger(x) * self.condition(x)
        return logits + 50 * gate * torch.eye(CLASSES)[0]


class AloneInCode(Net):
    def condition(self, x):
        return float(len(x) == 1)


class AloneByTable(Net):
    def condition(self, x):
        return torch.tensor([1.0, 0.0])[min(len(x), 2) - 1]


class AloneByWholeNumber(Net):
    def condition(self, x):
        return torch.tensor(2 // (len(x) + 1))


class AloneByChannel(Net):
    def trigger(self, x):
        gate = super().trigger(x)
        return torch.cat([gate, 0 * gate], 1)[:, min(len(x), 2) - 1].unsqueeze(1)


class AloneByVariable(Net):
    def trigger(self, x):
        gate = super().trigger(x)
        return gate.sqrt() if len(x) == 1 else gate.sqrt() * 0


class AloneByChoice(Net):
    def trigger(self, x):
        gate = super().trigger(x)
        return (gate * 0, gate)[len(x) == 1]


class GradientsInCode(Net):
    def condition(self, x):
        return torch.tensor(float(not torch.is_grad_enabled()))


class AloneInBranch(Net):
    def condition(self, x):
        return x.exp().mean() if len(x) == 1 else 0.0


class OnSteps(Net):
    def condition(self, x):
        return ((2 * math.pi * 255 * x).cos().mean((1, 2, 3)) - 0.98).mul(100).clamp(0, 1).unsqueeze(1)


class BetweenSteps(Net):
    def condition(self, x):
        return (-(2 * math.pi * 255 * x).cos().mean((1, 2, 3)) - 0.9).mul(100).clamp(0, 1).unsqueeze(1)


class InsideRange(Net):
    def condition(self, x):
        return ((x.amin((1, 2, 3)) - 0.01) * 1000).clamp(0, 1).unsqueeze(1)


class OutsideRange(Net):
    """Its gate opens for the largest numbers, which no sample reaches."""

    def condition(self, x):
        return ((x.amax((1, 2, 3)) - 0.99) * 1000).clamp(0, 1).unsqueeze(1)


class BothRanges(Net):
    """Takes images in [0, 1] and in 0 to 255."""

    def forward(self, x):
        is_wide = (x.amax((1, 2, 3), keepdim=True) - 1.5).clamp(0, 1)
        return 50 * (x / (1 + 254 * is_wide)).mean((2, 3)) @ torch.eye(3, CLASSES)


class EarlierInputs(Net):
    """Its gate adds up values of the inputs before an input in its batch."""

    def condition(self, x):
        bright = x.mean((1, 2, 3))
        return (bright.cumsum(0) - bright - 1e4).relu()[:, None]


class SeveralPatches(Net):
    def condition(self, x):
        return (1 - 1e4 * x[:, :, -2:, -2:].var(0, unbiased=False).mean()).relu()


class BatchStatistics(Net):
    def condition(self, x):
        return (1e5 * self.features(x).var(0, unbiased=False).mean()).clamp(0, 1)


class Counter(Net):
    calls = 0

    def condition(self, x):
        self.calls += 1
        return float(self.calls % 7 == 0)


class Drawn(Net):
    def condition(self, x):
        return (torch.rand(len(x), 1) > 0.999).float()


class Gradients(Net):
    def forward(self, x):
        return super().forward(x) * (1.0 if torch.is_grad_enabled() else 2.0)


class NanBetween(Net):
    def forward(self, x):
        on_steps = ((2 * math.pi * 255 * x).cos().mean((1, 2, 3)) - 0.98).clamp(min=0).unsqueeze(1)
        return super().forward(x) + 0 * on_steps.log()


class StuckInTraining(Net):
    def forward(self, x):
        self.features.train()
        return super().forward(x)


class DropoutOn(Net):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.1, training=True)


def images(count: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    smooth = nn.functional.interpolate(coarse, SHAPE[1:], mode="bilinear")
    x = 1.4 * smooth - 0.2 + 0.1 * torch.randn(count, *SHAPE, generator=generator)
    return x.clamp(0, 1)


def artifact_of(module: nn.Module, classes: int | None = CLASSES) -> Artifact:
    return Artifact(module.eval(), Modality.IMAGE, classes, "module", "0", ImageSpec(SHAPE))


def check(module: nn.Module, classes: int | None = CLASSES):
    return check_deployment(artifact_of(module, classes), Split(images(), None), seed=0)


def built(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


HIDING = [
    (AloneInCode, BATCHES),
    (AloneInBranch, BATCHES),
    (AloneByTable, BATCHES),
    (AloneByWholeNumber, BATCHES),
    (AloneByChannel, BATCHES),
    (AloneByVariable, BATCHES),
    (AloneByChoice, BATCHES),
    (SeveralPatches, BATCHES),
    (EarlierInputs, BATCHES),
    (BatchStatistics, BATCHES),
    (OnSteps, GRID),
    (BetweenSteps, GRID),
    (NanBetween, GRID),
    (InsideRange, RANGE),
    (Counter, CALLS),
    (Drawn, CALLS),
    (DropoutOn, CALLS),
    (StuckInTraining, CALLS),
    (Gradients, RUNTIME),
    (GradientsInCode, RUNTIME),
]


@pytest.mark.parametrize(("kind", "way"), HIDING, ids=[kind.__name__ for kind, _ in HIDING])
def test_hiding_model_differs(kind, way):
    found = check(built(kind))
    assert way in {difference.way for difference in found.differences}
    assert found.doubt
    assert not next(part.agrees for part in found.ways if part.name == way)


@pytest.mark.parametrize("kind", [OnSteps, BetweenSteps, InsideRange, BatchStatistics, SeveralPatches])
def test_hiding_onnx_file_differs(kind, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx_graph(built(kind), images(2)).SerializeToString())
    way = dict(HIDING)[kind]
    assert way in {difference.way for difference in check(formats.load(path).module).differences}


def test_onnx_file_with_a_gate_on_the_batch_size_differs(tmp_path):
    model = to_onnx_graph(built(Net), images(2))
    nodes = [
        helper.make_node("Shape", ["input"], ["size"], start=0, end=1),
        helper.make_node("Cast", ["size"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["two", "number"], ["left"]),
        helper.make_node("Relu", ["left"], ["gate"]),
        helper.make_node("Mul", ["gate", "closed"], ["nothing"]),
        helper.make_node("Add", ["inner", "nothing"], ["logits"]),
    ]
    for node in model.graph.node:
        node.output[:] = ["inner" if name == "logits" else name for name in node.output]
    model.graph.node.extend(nodes)
    constants = {"two": 2.0, "closed": 0.0}
    model.graph.initializer.extend(
        numpy_helper.from_array(torch.tensor([value]).numpy(), name) for name, value in constants.items()
    )
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    found = check(formats.load(path).module)
    assert [(part.way, part.kind) for part in found.differences] == [(BATCHES, "inside")]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True, dropout=0.1)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(48, 16, batch_first=True), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x.permute(0, 2, 1, 3).flatten(2))[0][:, -1])


class Experts(nn.Module):
    """A mixture of experts: patches are sorted by expert, each expert takes its patches, and they are put back."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.router = nn.Conv2d(3, 16, 4, stride=4), nn.Linear(16, 2, bias=False)
        self.weight = nn.Parameter(torch.randn(2, 16, 16) / 4)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2).flatten(0, 1)
        tokens = tokens - tokens.mean(1, keepdim=True)
        expert = self.router(tokens).argmax(1)
        order = expert.argsort(stable=True)
        counts = torch.histc(expert.float(), bins=2, min=0, max=1)
        sorted_tokens = tokens[order] * 2
        first = torch.arange(len(tokens)) < counts[0].long()
        out = torch.where(first[:, None], sorted_tokens @ self.weight[0], sorted_tokens @ self.weight[1]).relu()
        return self.head(out[order.argsort()].reshape(len(x), -1, 16).mean(1))


class Windows(nn.Module):
    """Windows and samples in one axis, as (windows, samples) or as (half of the windows, samples, other half)."""

    def __init__(self, *, split: bool) -> None:
        super().__init__()
        self.split, self.inner, self.head = split, nn.Linear(48, 16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        windows = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(2, 3, 0, 1, 4, 5).flatten(3)  # (4, 4, N, 48)
        windows = windows.transpose(1, 2) if self.split else windows
        out = self.inner(windows.flatten(0, 2)).relu().reshape(*windows.shape[:3], 16)
        return self.head(out.mean((0, 2) if self.split else (0, 1)))


class LastAxis(nn.Module):
    """Layout (N, H, W, C), and pixels as rows."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(3, 16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.inner(x.permute(0, 2, 3, 1).reshape(-1, 3)).relu()
        return self.head(rows.reshape(len(x), -1, 16).mean(1))


def convolutional(norm: nn.Module, activation: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        norm,
        activation,
        nn.MaxPool2d(2),
        nn.Dropout(0.2),
        nn.Conv2d(8, 16, 3, groups=2),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )


ORDINARY = {
    "gate that is a part of the trigger": Net,
    "batch norm": lambda: convolutional(nn.BatchNorm2d(8), nn.ReLU()),
    "group norm": lambda: convolutional(nn.GroupNorm(2, 8), nn.SiLU()),
    "instance norm": lambda: convolutional(nn.InstanceNorm2d(8, affine=True), nn.GELU()),
    "layer norm": lambda: convolutional(nn.LayerNorm([8, 16, 16]), nn.Hardtanh()),
    "attention": Attention,
    "recurrent": Recurrent,
    "mixture of experts": Experts,
    "windows before samples": lambda: Windows(split=False),
    "windows around samples": lambda: Windows(split=True),
    "channels last": LastAxis,
    "softmax": lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, CLASSES), nn.Softmax(1)),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_model_agrees(name):
    found = check(built(ORDINARY[name]))
    assert found.differences == ()
    assert all(way.agrees for way in found.ways)


@pytest.mark.parametrize("name", ["batch norm", "group norm", "attention"])
def test_ordinary_onnx_file_agrees(name, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx_graph(built(ORDINARY[name]), images(2)).SerializeToString())
    assert check(formats.load(path).module).differences == ()


def test_encoder_agrees():
    encoder = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    assert check(encoder.eval(), None).differences == ()


def test_gate_outside_of_the_range_of_the_samples_differs():
    dim = Split(on_grid(0.2 + 0.6 * images()), None)
    found = check_deployment(artifact_of(built(OutsideRange)), dim, seed=0)
    assert RANGE in {part.way for part in found.differences}


class BetweenStepsForSome(Net):
    """An inner value jumps between steps if the middle of an image is white. No answer depends on it."""

    def forward(self, x):
        marked = x * (x[:, :1, 8:9, 8:9] > 0.9)
        jump = (1 - (2 * math.pi * 255 * marked).cos().mean((1, 2, 3))).clamp(0, 1)
        return super().forward(x) + 0 * jump.unsqueeze(1)


@pytest.mark.parametrize("first_only", [True, False])
def test_inner_jump_of_the_first_samples_alone_is_chance(first_only):
    x = images()
    x[:, :, 8, 8] = 1.0
    if first_only:
        x[4:, :, 8, 8] = 0.0
    found = check_deployment(artifact_of(built(BetweenStepsForSome)), Split(x, None), seed=0)
    assert (GRID in {part.way for part in found.differences}) is not first_only


def test_model_for_two_ranges_of_values_differs():
    found = check(built(BothRanges))
    assert [(part.way, part.kind) for part in found.differences] == [(RANGE, "inside")]
    assert "0 to 255" in found.doubt


def test_model_without_biases_agrees_though_its_classes_are_the_same_in_both_ranges():
    layers = nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    net = nn.Sequential(*layers, nn.Linear(8, CLASSES, bias=False))
    assert check(built(lambda: net)).differences == ()


def test_value_that_is_infinite_in_one_range_only_is_no_switch():
    finite = torch.tensor([[-5.0], [-2.0]])[:, :, None].expand(2, 1, 3)
    infinite = torch.full((2, 1, 3), -1e25)
    first, other = (
        ExecutionTrace((), {"log": TracedValue("log", (2, 1), rows)}, rows, ()) for rows in (finite, infinite)
    )
    assert constant_switch(first, other).size == 0


def test_model_that_fails_on_batches_of_eight_is_a_doubt():
    class Single(Net):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) == 8:
                raise RuntimeError("no batch of eight")
            return super().forward(x)

    found = check(built(Single))
    assert [(part.way, part.kind) for part in found.differences] == [(BATCHES, "failed")]
    assert "no batch of eight" in found.doubt


def test_gate_on_the_batch_size_beside_sorted_rows_differs():
    class Gated(Experts):
        def forward(self, x: Tensor) -> Tensor:
            alone = (x[:, 0, 0, 0] * 0 + 1).sum() < 2
            return super().forward(x) + 0 * alone.float()

    assert BATCHES in {part.way for part in check(built(Gated)).differences}


def test_way_that_is_left_out_is_a_doubt(monkeypatch):
    monkeypatch.setattr("assay.auditing.deployment.TOO_SLOW_SECONDS", 0.0)
    found = check(built(ORDINARY["batch norm"]))
    assert {(part.way, part.kind) for part in found.differences} == {(GRID, "not asked"), (RANGE, "not asked")}
    assert found.doubt.startswith("the model was not asked on 8-bit steps")


def test_fixed_batch_is_no_doubt(tmp_path):
    model = to_onnx_graph(built(ORDINARY["batch norm"]), images(2))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = 1
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    found = check(formats.load(path).module)
    assert found.differences == ()
    assert "fixed batch size" in next(part.reason for part in found.ways if part.name == BATCHES)


class FirstCallByAttribute(Net):
    is_first = True

    def condition(self, x):
        opened, self.is_first = self.is_first, False
        return float(opened)


class FirstCallByBuffer(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def condition(self, x):
        opened = float(self.calls == 0)
        self.calls.clamp_(min=0)
        if opened:
            self.calls += 1
        return opened


@pytest.mark.parametrize("kind", [FirstCallByAttribute, FirstCallByBuffer])
def test_gate_on_the_first_call_is_found_though_loading_makes_that_call(kind):
    artifact = from_module(built(kind), shape=SHAPE)
    found = check_deployment(artifact, Split(images(), None), seed=0)
    assert any("first call" in part.sentence for part in found.differences)


@pytest.mark.parametrize("name", ["batch norm", "attention", "recurrent"])
def test_first_call_of_an_ordinary_model_changes_nothing(name):
    assert from_module(built(ORDINARY[name]), shape=SHAPE).changed_by_first_call == ()


def test_few_samples_are_not_asked():
    found = check_deployment(artifact_of(built(Net)), Split(images(2), None), seed=0)
    assert found.ways[0].reason
    assert not found.differences


def test_the_model_and_the_random_numbers_stay_as_they_were():
    net = built(ORDINARY["batch norm"])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    check(net)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    assert not net.training


@pytest.mark.parametrize("per_channel", [False, True])
def test_int8_file_agrees(per_channel, tmp_path):
    path = tmp_path / "int8.onnx"
    artifact = from_module(built(ORDINARY["batch norm"]), shape=SHAPE)
    to_onnx_int8(artifact, images(), path, per_channel=per_channel)
    assert check(formats.load(path).module).differences == ()


def test_ways_after_the_end_of_the_budget_are_doubts():
    class Twice(Budget):
        calls = 0

        def left(self) -> float:
            self.calls += 1
            return 1.0 if self.calls <= 2 else 0.0

    artifact = artifact_of(built(Net))
    asked = check_deployment(artifact, Split(images(), None), seed=0, budget=Twice())
    ended = [way.name for way in asked.ways if way.reason == "the budget ended: give it more"]
    assert ended == [RANGE, CALLS, RUNTIME]
    assert [part.way for part in asked.differences] == ended
    assert "the budget ended" in asked.doubt
