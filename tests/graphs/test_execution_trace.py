"""Execution traces of torch modules and ONNX files."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay import formats
from assay.graphs.execution_trace import Tracer, join_traces
from assay.graphs.export import to_onnx_graph
from assay.graphs.value_statistics import BatchAxis, statistics


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).relu().mean((2, 3)))


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["torch", "onnx"])
def net(request, tmp_path, x) -> nn.Module:
    torch.manual_seed(0)
    module = Net().eval()
    if request.param == "torch":
        return module
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx_graph(module, x[:2]).SerializeToString())
    return formats.load(path).module


def test_trace_holds_one_row_per_sample_of_every_value(net, x):
    trace = Tracer(net, x).run(x)
    assert len(trace.values) >= 4
    computed = [value for name, value in trace.values.items() if "operand" not in name]  # weights have one row
    assert {len(value.rows) for value in computed if value.rows is not None} == {len(x)}
    torch.testing.assert_close(trace.output, net(x).detach(), atol=1e-5, rtol=1e-4)
    assert not trace.random


def test_trace_of_two_calls_has_equal_steps_and_values(net, x):
    tracer = Tracer(net, x)
    one, other = tracer.run(x), tracer.run(x)
    assert one.steps == other.steps
    assert all(torch.equal(value.rows, other.values[name].rows) for name, value in one.values.items())


def test_session_of_an_onnx_module_is_restored(net, x):
    before = getattr(net, "session", None)
    Tracer(net, x).run(x)
    assert getattr(net, "session", None) is before


def test_joined_traces_hold_the_rows_of_both(net, x):
    tracer = Tracer(net, x)
    joined, batch = join_traces([tracer.run(x[:1]), tracer.run(x[1:2])]), tracer.run(x[:2])
    for name, value in joined.values.items():
        if "operand" in name:  # weights have one row
            continue
        torch.testing.assert_close(value.rows, batch.values[name].rows, atol=1e-5, rtol=1e-4)


def test_random_operators_are_named(x):
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5)).train()
    assert Tracer(net, x).run(x).random


def test_numbers_of_the_code_are_values(x):
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) * float(len(x) == 1)

    tracer = Tracer(Scaled(), x)
    one, many = tracer.run(x[:1]), tracer.run(x)
    name = next(name for name in one.values if name.endswith("constants"))
    assert float(one.values[name].rows.amax()) == 1
    assert float(many.values[name].rows.amax()) == 0


def test_batch_axis_inside_another_axis_is_found(x):
    class Heads(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.flatten(0, 1) * 2).reshape(len(x), -1) * 3

    assert BatchAxis(0, 3) in Tracer(Heads(), x).axes.values()


def test_statistics_of_nan_equal_themselves():
    rows = torch.full((2, 3, 4, 4), float("nan"))
    assert torch.equal(statistics(rows), statistics(rows))
    assert statistics(rows).isfinite().all()
