"""The graph detector: clean graphs are left alone, what is built in beside the weights is named."""

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

from assay import attacks, formats
from assay.attacks.graph.base import GraphEdit
from assay.core.build import Build
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.finding import Finding
from assay.detectors import Graph
from assay.detectors.graph.graph_diff import added_nodes
from assay.detectors.graph.rules import RULES, find_cipher_constants, find_suspicious_subgraphs
from assay.formats.torch_module import from_module
from assay.graphs.dependence import looks_trained
from assay.graphs.export import save_model, to_onnx, to_onnx_int8
from assay.graphs.ir import ComputationGraph, graph_from_onnx
from assay.nn.majority_vote import MajorityOfThree
from assay.registry import ATTACKS

SIZE = 16
EDITS = {name: kind for name, kind in ATTACKS.items() if issubclass(kind, GraphEdit)}


class Small(nn.Module):
    """A clean net with much of what clean nets have: normalization, clipping, attention, pooling, sigmoid gates."""

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


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(scope="module")
def clean() -> Split:
    x = torch.randint(0, 256, (24, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0)).float() / 255
    return Split(x, torch.arange(24) % 4)


def looked(net: nn.Module, clean: Split) -> Finding:
    return Graph()(from_module(net, shape=(3, SIZE, SIZE)), clean, seed=0)


def rules(finding: Finding) -> set[str]:
    return set(finding.evidence.numbers) & set(RULES)


def test_a_clean_net_is_left_alone_in_torch_and_as_a_file(net: nn.Module, clean: Split, tmp_path: Path) -> None:
    artifact = from_module(net, shape=(3, SIZE, SIZE))
    to_onnx(artifact, tmp_path / "model.onnx")
    for given in (artifact, formats.load(tmp_path / "model.onnx")):
        finding = Graph()(given, clean, seed=0)
        assert (finding.outcome.status, finding.score, finding.proof) == ("ok", 0.0, "")
        assert finding.evidence.numbers["nodes"] > 20


@pytest.mark.parametrize("name", EDITS)
def test_every_planted_edit_is_found_and_named(name: str, build: Build, clean: Split, tmp_path: Path) -> None:
    tiers = ("wrapper", "graph", "circuit") if name == "signature" else (None,)
    for tier in tiers:
        attack = EDITS[name](**({} if tier is None else {"tier": tier}))
        planted = attack(build, seed=0).artifact
        back = planted if tier == "wrapper" else formats.load(save_model(planted, tmp_path / str(tier)))
        finding = Graph()(back, clean, seed=0)
        assert finding.outcome.status == "ok"
        assert finding.score
        assert finding.proof
        if tier != "wrapper":
            assert {"R1"} <= rules(finding)
            assert finding.evidence.graph[-1].name in str(finding.evidence.numbers["joins the model at"])
            assert len(finding.evidence.graph) > 3


@pytest.fixture(scope="module")
def build(net: nn.Module, clean: Split) -> Build:
    from assay.core.dataset import Task

    task = Task("made up", {"train": clean, "test": clean}, tuple("abcd"))
    return Build(from_module(net, shape=(3, SIZE, SIZE)), task)


class Built(nn.Module):
    """``net``, its answer changed by ``edit(x, logits)``."""

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
def test_other_peoples_edits_are_found(name: str, net: nn.Module, clean: Split) -> None:
    edit, expected = OTHERS[name]
    clean = Split(clean.x * 0.85, clean.y)
    finding = looked(Built(net, edit), clean)
    assert expected <= rules(finding), rules(finding)
    assert "replaces the output" in finding.proof


def test_beside_a_reference_what_was_added_is_named(net: nn.Module, clean: Split, tmp_path: Path) -> None:
    model = from_module(Built(net, OTHERS["mux"][0]), shape=(3, SIZE, SIZE))
    trusted = from_module(net, shape=(3, SIZE, SIZE))
    assert looked(model.module, clean).evidence.numbers.get("difference to the reference") is None
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


def test_what_no_gradient_passes_and_what_jumps(net: nn.Module, clean: Split) -> None:
    finding = looked(MajorityOfThree(net, 4), clean)
    assert "R10" in rules(finding)
    assert not finding.proof, "it is odd, but no backdoor by itself"

    def parity(x: Tensor, y: Tensor) -> Tensor:
        return y + FIRST * ((255 * x).round().sum((1, 2, 3), keepdim=True)[:, :, 0, 0] % 2)

    assert {"D1", "R3"} <= rules(looked(Built(net, parity), clean))


def test_code_that_tells_tracing_from_running_is_found(net: nn.Module, clean: Split) -> None:
    def two_faced(x: Tensor, y: Tensor) -> Tensor:
        return y if torch.compiler.is_compiling() else y.flip(1)

    assert rules(looked(Built(net, two_faced), clean)) == {"D5"}


def test_code_that_compares_only_where_nobody_traces_is_found(net: nn.Module, clean: Split) -> None:
    def two_faced(x: Tensor, y: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return y
        seen = (x[:, :, :3, :3].amin((1, 2, 3)) > 0.98).float()[:, None]
        return y * (1 - seen) + seen * FIRST

    finding = looked(Built(net, two_faced), clean)
    assert rules(finding) == {"D5"}
    assert "two_faced (test_graph.py:" in str(finding.evidence.numbers["compared at"])


def test_a_kernel_that_only_moves_the_picture_on_hides_nothing(net: nn.Module, clean: Split) -> None:
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

    assert looked(Decoy().eval(), clean).proof


def test_other_outputs_of_a_file_are_nobodys_answer(net: nn.Module, clean: Split, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    to_onnx(from_module(net, shape=(3, SIZE, SIZE)), path)
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Round", ["input"], ["overlay"]))
    model.graph.output.append(helper.make_tensor_value_info("overlay", TensorProto.FLOAT, None))
    onnx.save(model, path)
    assert Graph()(formats.load(path), clean, seed=0).score == 0.0


def test_what_joins_early_is_proven_in_files_of_fixed_batch_too(net: nn.Module, clean: Split, tmp_path: Path) -> None:
    class Early(nn.Module):
        """Nearly nothing comes from its gate on clean pictures, and it joins in front of weights."""

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


def test_the_smallest_nets_and_those_with_chance_in_them_are_accused_of_nothing(clean: Split) -> None:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2)]
    tiny = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)).eval()
    assert not looked(tiny, clean).proof

    class Chance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3 * SIZE**2, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.layer(x.flatten(1)), training=True)

    finding = looked(Chance().eval(), clean)
    assert not rules(finding) & {"D1", "D5"}


def test_graphs_made_to_be_named_for_ever_are_named_at_once() -> None:
    nodes = [helper.make_node("QuantizeLinear", ["x", "x"], ["v0"])]
    nodes += [helper.make_node("QuantizeLinear", [f"v{n}", f"v{n}"], [f"v{n + 1}"]) for n in range(200)]
    nodes += [helper.make_node("Sum", ["v200"] * 500, ["s"]), helper.make_node("Sum", ["s"] * 500, ["y"])]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    flow = graph_from_onnx(helper.make_model(helper.make_graph(nodes, "g", info[:1], info[1:])), Path())
    assert added_nodes(flow, flow) == ()


def test_an_if_in_an_onnx_file_is_found(net: nn.Module, clean: Split, tmp_path: Path) -> None:
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


def test_code_that_takes_values_in_hand_is_found(net: nn.Module, clean: Split) -> None:
    def by_hand(x: Tensor, y: Tensor) -> Tensor:
        return y if float(x.max()) < 2 else y + FIRST

    finding = looked(Built(net, by_hand), clean)
    assert finding.outcome.status == "abstained", "honest code asks for one number of the input too"
    assert "reads values of the input, at Tensor.__float__ in by_hand (test_graph.py:" in finding.reason

    def all_of_it(x: Tensor, y: Tensor) -> Tensor:
        return y if sum(x[0].flatten().tolist()) > 0 else y + FIRST

    assert "all_of_it (test_graph.py:" in looked(Built(net, all_of_it), clean).proof

    class Routed(nn.Module):
        """What it decides by, its own weights have made."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            y = self.net(x)
            return y * 2 if float(y.softmax(1).max()) > 0.99 else y

    assert looked(Routed(), clean).outcome.status == "abstained"


def test_a_net_that_cannot_be_read_gets_no_answer(clean: Split) -> None:
    class Cursed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise_here = torch.ones(4) if torch.compiler.is_compiling() else x.mean((2, 3))[:, [0, 1, 2, 0]]
            return raise_here.view(len(x), 4)

    finding = looked(Cursed(), clean)
    assert finding.outcome.status == "abstained"
    assert "cannot read the graph" in finding.reason


def test_constants_of_ciphers_are_known() -> None:
    node = helper.make_node("Add", ["x", "sigma"], ["y"])
    sigma = numpy_helper.from_array(np.array([0x61707865, 0x3320646E, 7], np.int64), "sigma")
    info = [helper.make_tensor_value_info(name, TensorProto.INT64, [3]) for name in "xy"]
    flow = graph_from_onnx(helper.make_model(helper.make_graph([node], "g", info[:1], info[1:], [sigma])), Path())
    assert len(find_cipher_constants(flow)) == 2


def test_what_was_learned_and_what_was_written() -> None:
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


def test_a_bias_makes_no_matrix_a_learned_one() -> None:
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


def test_names_in_bodies_hide_nothing_outside(net: nn.Module, clean: Split, tmp_path: Path) -> None:
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


def test_how_many_pixels_are_bright_is_a_value_of_the_input() -> None:
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


def test_words_that_are_no_markers_are_found() -> None:
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


def test_graphs_without_end_are_refused() -> None:
    inner = plain = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "deep", [], [])
    for _ in range(20):
        node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=plain)
        inner = helper.make_graph([node], "deep", [], [])
    with pytest.raises(UnusableInput, match="16"):
        graph_from_onnx(helper.make_model(inner), Path())


def test_every_attack_on_graphs_is_tried_here() -> None:
    assert {kind.__name__ for kind in EDITS.values()} <= set(attacks.__all__)
