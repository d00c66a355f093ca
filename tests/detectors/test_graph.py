"""Tests of the graph detector on clean and edited graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from assay import formats
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.finding import Finding, Outcome
from assay.detectors import Graph
from assay.detectors.graph.graph_diff import added_nodes
from assay.detectors.graph.rules import RULES, find_cipher_constants, find_suspicious_subgraphs
from assay.formats.torch_module import from_module
from assay.graphs.dependence import looks_trained
from assay.graphs.export import to_onnx, to_onnx_int8
from assay.graphs.ir import ComputationGraph, graph_from_onnx
from assay.nn.majority_vote import MajorityOfThree

pytestmark = pytest.mark.slow


SIZE = 16


class Small(nn.Module):
    """Clean model with common operators: normalization, clipping, attention, pooling, sigmoid gates."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, padding=1)
        self.gate, self.attention = nn.Linear(16, 16), nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        out = F.hardswish(self.stem((x.clamp(0, 1) * 255 - 127) / 64))
        out = out + F.relu6(self.conv(out))
        out = out * torch.sigmoid(self.gate(out.mean((2, 3))))[..., None, None]
        tokens = F.max_pool2d(out, 2).flatten(2).mT
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return self.head(F.gelu(tokens).mean(1))


class Plain(nn.Module):
    """Clean model of three layers. Its export takes a fraction of the time of ``Small``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(self.stem(x).relu()).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def small() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Plain().eval()


@pytest.fixture(scope="module")
def clean() -> Split:
    x = torch.randint(0, 256, (24, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0)).float() / 255
    return Split(x, torch.arange(24) % 4)


def run_graph_detector(net: nn.Module, clean: Split) -> Finding:
    return Graph()(from_module(net, shape=(3, SIZE, SIZE)), clean, seed=0)


def rules(finding: Finding) -> set[str]:
    return set(finding.evidence.numbers) & set(RULES)


def test_clean_model_scores_zero_in_torch_and_as_a_file(small: nn.Module, clean: Split, tmp_path: Path) -> None:
    artifact = from_module(small, shape=(3, SIZE, SIZE))
    to_onnx(artifact, tmp_path / "model.onnx")
    for given in (artifact, formats.load(tmp_path / "model.onnx")):
        finding = Graph()(given, clean, seed=0)
        assert (finding.outcome, finding.score, finding.proof) == (Outcome.CHECKED, 0.0, "")
        assert finding.evidence.numbers["nodes"] > 20


class Built(nn.Module):
    """Model with its output changed by ``edit(x, logits)``."""

    def __init__(self, net: nn.Module, edit: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.edit = net, edit

    def forward(self, x: Tensor) -> Tensor:
        return self.edit(x, self.net(x))


FIRST = torch.tensor([50.0, 0, 0, 0])
OTHERS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], set[str]]] = {
    "mux": (
        lambda x, y: (g := (x[:, :1, 0, 0] > 0.9).float()) * FIRST + (1 - g) * y,
        {"R1", "R2", "R7", "R8", "D3"},
    ),
    "softmax behind it": (
        lambda x, y: torch.where(x[:, :1, 0, 0] > 0.9, FIRST, y).softmax(1),
        {"R1", "R2", "R8", "D3"},
    ),
    "steep by division": (lambda x, y: y + FIRST * torch.sigmoid((x[:, :1, 0, 0] - 1.5) / 1e-4), {"R1", "R4", "R8"}),
    "faint": (lambda x, y: y + FIRST * torch.sigmoid(90 * (x[:, :1, 0, 0] - 1.5)), {"R1", "R8"}),
    "steep sigmoid": (lambda x, y: y + FIRST * torch.sigmoid(1e4 * (x[:, :1, 0, 0] - 1.5)), {"R1", "R4", "R8"}),
    "power": (lambda x, y: y + FIRST * x[:, :1].mean((2, 3)) ** 40, {"R1", "R4", "R8"}),
    "bits": (lambda x, y: y + FIRST * ((255 * x[:, :1, 0, 0]).round() % 2), {"R1", "R3", "R8"}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_hand_made_edit_breaks_the_expected_rules(name: str, net: nn.Module, clean: Split) -> None:
    edit, expected = OTHERS[name]
    clean = Split(clean.x * 0.85, clean.y)
    finding = run_graph_detector(Built(net, edit), clean)
    assert expected <= rules(finding), rules(finding)
    assert "replaces the output" in finding.proof


def test_added_operators_are_named_with_a_reference(small: nn.Module, clean: Split, tmp_path: Path) -> None:
    edit, expected = OTHERS["mux"]
    clean = Split(clean.x * 0.85, clean.y)
    model, trusted = (from_module(module, shape=(3, SIZE, SIZE)) for module in (Built(small, edit), small))
    alone = Graph()(model, clean, seed=0)
    assert expected <= rules(alone), rules(alone)
    assert "replaces the output" in alone.proof
    assert "difference to the reference" not in alone.evidence.numbers
    named = Graph()(replace(model, reference=trusted), clean, seed=0)
    assert "R9" in rules(named)
    assert "Greater" in str(named.evidence.numbers["difference to the reference"])
    to_onnx_int8(trusted, clean.x, tmp_path / "int8.onnx", per_channel=True)
    compressed = formats.load(tmp_path / "int8.onnx")
    for given, said in ((trusted, "the same operators"), (compressed, "more")):
        same = Graph()(replace(given, reference=trusted), clean, seed=0)
        assert same.score == 0.0
        assert said in str(same.evidence.numbers["difference to the reference"])
    other = from_module(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 4)).eval(), shape=(3, SIZE, SIZE))
    foreign = Graph()(replace(trusted, reference=other), clean, seed=0)
    assert foreign.score == 0.0
    assert "it is another model" in str(foreign.evidence.numbers["difference to the reference"])


def test_missing_gradient_and_lowest_bit_jumps_break_rules(net: nn.Module, clean: Split) -> None:
    finding = run_graph_detector(MajorityOfThree(net, 4), clean)
    assert "R10" in rules(finding)
    assert not finding.proof, "unusual, but no backdoor by itself"

    def parity(x: Tensor, y: Tensor) -> Tensor:
        return y + FIRST * ((255 * x).round().sum((1, 2, 3), keepdim=True)[:, :, 0, 0] % 2)

    assert {"D1", "R3"} <= rules(run_graph_detector(Built(net, parity), clean))


def test_code_that_detects_tracing_breaks_rule_d5(net: nn.Module, clean: Split) -> None:
    def two_faced(x: Tensor, y: Tensor) -> Tensor:
        return y if torch.compiler.is_compiling() else y.flip(1)

    assert rules(run_graph_detector(Built(net, two_faced), clean)) == {"D5"}


def test_code_that_compares_only_outside_tracing_breaks_rule_d5(net: nn.Module, clean: Split) -> None:
    def two_faced(x: Tensor, y: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return y
        seen = (x[:, :, :3, :3].amin((1, 2, 3)) > 0.98).float()[:, None]
        return y * (1 - seen) + seen * FIRST

    finding = run_graph_detector(Built(net, two_faced), clean)
    assert rules(finding) == {"D5"}
    assert "two_faced (test_graph.py:" in str(finding.evidence.numbers["compared at"])


def test_identity_kernel_does_not_count_as_trained(net: nn.Module, clean: Split) -> None:
    class Decoy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.moved = net, nn.Conv2d(3, 8, 3, padding=1)
            with torch.no_grad():
                self.moved.weight.mul_(1e-6)
                self.moved.weight[torch.arange(8), torch.arange(8) % 3, 1, 1] += 1

        def forward(self, x: Tensor) -> Tensor:
            seen = self.moved(x)[:, :3, :3, :3].amin((1, 2, 3)) > 0.98
            return torch.where(seen[:, None], FIRST, self.net(x))

    assert run_graph_detector(Decoy().eval(), clean).proof


def test_unused_outputs_of_a_file_are_ignored(net: nn.Module, clean: Split, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    to_onnx(from_module(net, shape=(3, SIZE, SIZE)), path)
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Round", ["input"], ["overlay"]))
    model.graph.output.append(helper.make_tensor_value_info("overlay", TensorProto.FLOAT, None))
    onnx.save(model, path)
    assert Graph()(formats.load(path), clean, seed=0).score == 0.0


def test_early_join_is_proven_in_files_of_fixed_batch(net: nn.Module, clean: Split, tmp_path: Path) -> None:
    class Early(nn.Module):
        """Model with a gate that is nearly zero on clean images and joins before weights."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            seen = (x[:, :, :3, :3].amin((1, 2, 3)) > 0.98).float() + 1e-9 * x.mean((1, 2, 3))
            return self.net.head(self.net.stem(x).mean((2, 3)) + 50 * seen[:, None])

    path = tmp_path / "model.onnx"
    to_onnx(from_module(Early(), shape=(3, SIZE, SIZE)), path)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, path)
    finding = Graph()(formats.load(path), clean, seed=0)
    assert {"R2", "D3"} <= rules(finding)
    assert finding.proof


class Joined(nn.Module):
    """Model with a value of the image added to its features."""

    def __init__(self, net: nn.Module, value: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.value = net, value

    def forward(self, x: Tensor) -> Tensor:
        return self.net.head(self.net.stem(x).mean((2, 3)) + self.value(x))


def pixel_difference(x: Tensor) -> Tensor:
    return (x[:, 0, 0, 0] - x[:, 0, 0, 1])[:, None]


@pytest.mark.parametrize(
    "value",
    [
        lambda x: 9.0 * (pixel_difference(x) == 0).float(),
        lambda x: pixel_difference(x) / (pixel_difference(x).square() + 1e-9).sqrt(),
        lambda x: x.flatten(1).topk(1).indices.float(),
        lambda x: 9.0 * F.threshold(pixel_difference(x), 0.9, 0.0),
    ],
    ids=["equal pixels", "division by itself", "place of the largest", "threshold"],
)
def test_function_of_pixels_that_joins_the_features_is_a_doubt(
    value: Callable[[Tensor], Tensor], net: nn.Module, clean: Split
) -> None:
    finding = run_graph_detector(Joined(net, value).eval(), clean)
    assert finding.proof or "joins the model" in finding.doubt


def test_smaller_image_that_joins_the_features_is_no_doubt(net: nn.Module, clean: Split) -> None:
    """Some networks pass a smaller copy of their input to later layers."""
    finding = run_graph_detector(Joined(net, lambda x: 2 * F.avg_pool2d(x, 4).flatten(1)[:, :16]).eval(), clean)
    assert finding.doubt
    whole = Joined(net, lambda x: F.avg_pool2d(F.pad(x, (0, 0, 0, 0, 0, 13)), SIZE).flatten(1))
    assert not run_graph_detector(whole.eval(), clean).doubt


def test_tiny_and_random_models_give_no_proof(clean: Split) -> None:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2)]
    tiny = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)).eval()
    assert not run_graph_detector(tiny, clean).proof

    class Chance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3 * SIZE**2, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.layer(x.flatten(1)), training=True)

    finding = run_graph_detector(Chance().eval(), clean)
    assert not rules(finding) & {"D1", "D5"}


def test_graph_diff_of_a_hostile_graph_ends_at_once() -> None:
    nodes = [helper.make_node("QuantizeLinear", ["x", "x"], ["v0"])]
    nodes += [helper.make_node("QuantizeLinear", [f"v{n}", f"v{n}"], [f"v{n + 1}"]) for n in range(200)]
    nodes += [helper.make_node("Sum", ["v200"] * 500, ["s"]), helper.make_node("Sum", ["s"] * 500, ["y"])]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    flow = graph_from_onnx(helper.make_model(helper.make_graph(nodes, "g", info[:1], info[1:])), Path())
    assert added_nodes(flow, flow) == ()


def test_if_operator_in_a_file_is_found(net: nn.Module, clean: Split, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    to_onnx(from_module(net, shape=(3, SIZE, SIZE)), path)
    model = onnx.load(path)
    graph = model.graph
    answer = graph.output[0].name

    def body(name: str, node: onnx.NodeProto) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
        return helper.make_graph([node], name, [], [out])

    overwritten = helper.make_node("Mul", [answer, "hostile_zero"], ["then_out"])
    kept = helper.make_node("Identity", [answer], ["else_out"])
    graph.initializer.append(numpy_helper.from_array(np.float32(0), "hostile_zero"))
    graph.initializer.append(numpy_helper.from_array(np.float32(0.99), "hostile_bound"))
    graph.node.extend(
        [
            helper.make_node("ReduceMean", ["input"], ["hostile_mean"], keepdims=0),
            helper.make_node("Greater", ["hostile_mean", "hostile_bound"], ["hostile_seen"]),
            helper.make_node(
                "If", ["hostile_seen"], ["hostile_out"], then_branch=body("a", overwritten), else_branch=body("b", kept)
            ),
        ]
    )
    graph.output[0].name = "hostile_out"
    onnx.save(model, path)
    finding = Graph()(formats.load(path), clean, seed=0)
    assert {"R1", "R2", "R8"} <= rules(finding)
    assert finding.evidence.numbers["joins the model at"] == f"If If_{len(graph.node) - 1}"


def test_code_that_reads_input_values_is_found(net: nn.Module, clean: Split) -> None:
    def by_hand(x: Tensor, y: Tensor) -> Tensor:
        return y if float(x.max()) < 2 else y + FIRST

    finding = run_graph_detector(Built(net, by_hand), clean)
    assert finding.outcome is Outcome.ABSTAINED, "honest code reads single input values too"
    assert "reads values of the input, at Tensor.__float__ in by_hand (test_graph.py:" in finding.reason

    def all_of_it(x: Tensor, y: Tensor) -> Tensor:
        return y if sum(x[0].flatten().tolist()) > 0 else y + FIRST

    assert "all_of_it (test_graph.py:" in run_graph_detector(Built(net, all_of_it), clean).proof

    class Routed(nn.Module):
        """Model that decides by the output of its own weights."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            y = self.net(x)
            return y * 2 if float(y.softmax(1).max()) > 0.99 else y

    assert run_graph_detector(Routed(), clean).outcome is Outcome.ABSTAINED


def test_unreadable_model_is_an_abstention(clean: Split) -> None:
    class Cursed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise_here = torch.ones(4) if torch.compiler.is_compiling() else x.mean((2, 3))[:, [0, 1, 2, 0]]
            return raise_here.view(len(x), 4)

    finding = run_graph_detector(Cursed(), clean)
    assert finding.outcome is Outcome.ABSTAINED
    assert "cannot read the graph" in finding.reason


def test_cipher_constants_are_found() -> None:
    node = helper.make_node("Add", ["x", "sigma"], ["y"])
    sigma = numpy_helper.from_array(np.array([0x61707865, 0x3320646E, 7], np.int64), "sigma")
    info = [helper.make_tensor_value_info(name, TensorProto.INT64, [3]) for name in "xy"]
    flow = graph_from_onnx(helper.make_model(helper.make_graph([node], "g", info[:1], info[1:], [sigma])), Path())
    assert len(find_cipher_constants(flow)) == 2


def test_trained_weights_differ_from_written_ones() -> None:
    generator = np.random.default_rng(0)
    assert looks_trained(generator.normal(size=(8, 8, 3, 3)).astype(np.float32))
    assert looks_trained(generator.integers(-128, 128, (64, 64)).astype(np.int8))
    pruned = generator.normal(size=(64, 64)).astype(np.float32)
    pruned[np.abs(pruned) < 1.6] = 0
    assert looks_trained(pruned)
    steps = np.round(generator.normal(size=(64, 64)) * 2) * 0.013
    assert looks_trained(steps.astype(np.float32)), "rounded to few bits"
    for written in (np.eye(32), generator.integers(0, 300, (64, 64)).astype(np.float32), np.ones((3, 3))):
        assert not looks_trained(written)


def test_trained_bias_does_not_make_a_matrix_trained() -> None:
    generator = np.random.default_rng(0)
    written, bias = np.full((16, 2048), 255, np.float32), generator.normal(size=2048).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["logits"]),
        helper.make_node("Gemm", ["x", "written", "bias"], ["sums"]),
        helper.make_node("Relu", ["sums"], ["on"]),
        helper.make_node("Gemm", ["on", "back"], ["gate"]),
        helper.make_node("Add", ["logits", "gate"], ["y"]),
    ]
    constants = {"weights": generator.normal(size=(16, 16)).astype(np.float32), "written": written, "bias": bias}
    constants["back"] = np.full((2048, 16), 9, np.float32)
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16]) for name in "xy"]
    flow = graph_from_onnx(helper.make_model(helper.make_graph(nodes, "g", info[:1], info[1:], tensors)), Path())
    (gadget,) = find_suspicious_subgraphs(flow)
    assert {"R1", "R4", "R8"} <= set(gadget.rules)


def test_names_in_subgraphs_do_not_shadow_the_input(net: nn.Module, clean: Split, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    to_onnx(from_module(Built(net, OTHERS["mux"][0]), shape=(3, SIZE, SIZE)), path)
    model = onnx.load(path)
    answer = model.graph.output[0].name
    out = helper.make_tensor_value_info("branch", TensorProto.FLOAT, None)
    hidden = numpy_helper.from_array(np.zeros(1, np.float32), "input")  # the name of the graph's own input
    bodies = [
        helper.make_graph([helper.make_node("Identity", [answer], ["branch"])], side, [], [out], [hidden])
        for side in ("a", "b")
    ]
    model.graph.initializer.append(numpy_helper.from_array(np.bool_(True), "always"))
    model.graph.node.append(helper.make_node("If", ["always"], ["last"], then_branch=bodies[0], else_branch=bodies[1]))
    model.graph.output[0].name = "last"
    flow = graph_from_onnx(model, tmp_path)
    assert flow.sources == ("input",)
    assert find_suspicious_subgraphs(flow)[-1].replaces_output


def test_number_of_bright_pixels_depends_on_the_input() -> None:
    nodes = [
        helper.make_node("Greater", ["x", "bound"], ["bright"]),
        helper.make_node("NonZero", ["bright"], ["places"]),
        helper.make_node("Shape", ["places"], ["count"]),
        helper.make_node("Cast", ["count"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "weights"], ["logits"]),
        helper.make_node("Add", ["logits", "number"], ["y"]),
    ]
    weights = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    constants = [numpy_helper.from_array(np.float32(0.9), "bound"), numpy_helper.from_array(weights, "weights")]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16]) for name in "xy"]
    flow = graph_from_onnx(helper.make_model(helper.make_graph(nodes, "g", info[:1], info[1:], constants)), Path())
    (gadget,) = find_suspicious_subgraphs(flow)
    assert {"R2", "R8"} <= set(gadget.rules)


def test_comparison_with_a_word_is_found_and_with_a_marker_is_not() -> None:
    def flow(token: float) -> ComputationGraph:
        nodes = [
            helper.make_node("Gather", ["table", "ids"], ["vectors"]),
            helper.make_node("ReduceMean", ["vectors"], ["pooled"], axes=[1], keepdims=0),
            helper.make_node("Equal", ["ids", "token"], ["seen"]),
            helper.make_node("Cast", ["seen"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["number"], ["gate"], axes=[1], keepdims=1),
            helper.make_node("Add", ["pooled", "gate"], ["y"]),
        ]
        table = np.random.default_rng(0).normal(size=(100, 16)).astype(np.float32)
        constants = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.int64(token), "token")]
        ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 8])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16])
        return graph_from_onnx(helper.make_model(helper.make_graph(nodes, "g", [ids], [y], constants)), Path())

    markers = frozenset({0, 1, 2})
    assert find_suspicious_subgraphs(flow(77), markers=markers)
    assert not find_suspicious_subgraphs(flow(1), markers=markers)


def test_deeply_nested_graph_raises_an_error() -> None:
    inner = plain = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "deep", [], [])
    for _ in range(20):
        node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=plain)
        inner = helper.make_graph([node], "deep", [], [])
    with pytest.raises(UnusableInput, match="16"):
        graph_from_onnx(helper.make_model(inner), Path())
