"""Tests of traced graphs, shared by models that differ in their weights only."""

from __future__ import annotations

import copy

import onnxruntime
import pytest
import torch
from support.tiny import tiny_net
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.core.model import digest_of_module
from assay.graphs import trace
from assay.graphs.export import to_onnx_graph
from assay.graphs.fx import folded_graph

X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The models that torch.export traced; no trace is known at first."""
    trace._slot.cache_clear()
    traced: list[nn.Module] = []
    export = torch.export.export

    def counted(model: nn.Module, *args: object, **settings: object) -> object:
        traced.append(model)
        return export(model, *args, **settings)

    monkeypatch.setattr(torch.export, "export", counted)
    return traced


class Switch(nn.Module):
    """Negative outputs if an attribute of the class is set, which no key can hold."""

    negative = False

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x.mean((2, 3)))
        return -x if Switch.negative else x


class Untraceable(nn.Module):
    """Depends on numbers of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.mean((2, 3))) * (2 if float(x.mean()) > 0.5 else 1)


def test_variants_share_one_trace_with_their_own_weights(exports: list[nn.Module]) -> None:
    models = [tiny_net(seed) for seed in range(3)]
    graphs = [folded_graph(model, X) for model in models]
    assert len(exports) == 1
    for model, graph in zip(models, graphs, strict=True):
        with torch.no_grad():
            assert torch.allclose(graph(X), model(X), atol=1e-5)


def test_a_shared_trace_gives_the_same_weights_as_a_trace_of_its_own(exports: list[nn.Module]) -> None:
    model = tiny_net(1)
    folded_graph(tiny_net(0), X)
    shared = digest_of_module(folded_graph(model, X))
    trace._slot.cache_clear()
    assert digest_of_module(folded_graph(copy.deepcopy(model), X)) == shared
    assert len(exports) == 2


def test_other_outputs_than_those_of_the_shared_trace_cause_a_new_trace(
    exports: list[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = Switch().eval(), Switch().eval()
    folded_graph(one, X)
    monkeypatch.setattr(Switch, "negative", True)
    graph = folded_graph(other, X)
    assert len(exports) == 2
    with torch.no_grad():
        assert torch.allclose(graph(X), other(X), atol=1e-5)


def test_an_untraceable_structure_is_traced_once(exports: list[nn.Module]) -> None:
    for _ in range(2):
        with pytest.raises(UnusableInput, match=r"torch\.export can trace"):
            folded_graph(Untraceable().eval(), X)
    assert len(exports) == 1


def test_the_onnx_export_of_a_traced_model_traces_nothing(exports: list[nn.Module]) -> None:
    first, model = tiny_net(0), tiny_net(1)
    folded_graph(first, X)
    folded_graph(model, X)
    exported = to_onnx_graph(model, X[:2])
    assert len(exports) == 1
    session = onnxruntime.InferenceSession(exported.SerializeToString())
    (outputs,) = session.run(None, {"input": X.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(outputs), model(X), atol=1e-4)


def test_the_onnx_export_of_other_weights_is_traced_anew(exports: list[nn.Module]) -> None:
    folded_graph(tiny_net(0), X)
    to_onnx_graph(tiny_net(1), X[:2])
    assert len(exports) == 2


def test_a_kept_trace_holds_no_weights(exports: list[nn.Module]) -> None:
    del exports
    model = tiny_net().requires_grad_(False)
    slot = trace.trace_slot(model, X)
    kept = slot.fill(model, X[:2])
    assert all(weight.is_meta for weight in kept.program.state_dict.values())
    assert not kept.constants
