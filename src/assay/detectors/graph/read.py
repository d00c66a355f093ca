"""Computation graph of a model under audit, read once for all detectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.formats.onnx.external_data import embed_external_data
from assay.formats.onnx.read import read_onnx_model
from assay.formats.onnx.runtime import OnnxRuntimeModule
from assay.formats.onnx.signature import drop_unread_inputs
from assay.graphs.export import to_onnx_graph
from assay.graphs.ir import ComputationGraph, graph_from_onnx, subgraph_of
from assay.graphs.trace import tracing_fault
from assay.nn.hooks import capture_inputs
from assay.nn.log_probs import LogProbabilities
from assay.nn.normalized import Normalized
from assay.nn.unit_margin import UnitMargin

if TYPE_CHECKING:
    import onnx


# Message of torch.export for code that decides by the size of the axis "batch".
CHOSEN_BY_BATCH = "Constraints violated (batch)"


@dataclass(frozen=True)
class ReadableGraph:
    """A computation graph, and samples in the layout of its input."""

    model: onnx.ModelProto
    graph: ComputationGraph
    x: Tensor
    batch: int | None  # fixed batch size; None: any
    chosen_by_batch: bool = False  # True: the code of the model chooses by the batch size, and the graph has one choice


@dataclass(frozen=True)
class UnreadableGraph:
    """Reason for a missing graph."""

    reason: str


def unwrap(module: nn.Module) -> nn.Module:
    """Return ``module`` without the wrappers of the audit."""
    while isinstance(module, UnitMargin | LogProbabilities):
        module = module.net
    return module


def is_onnx_session(module: nn.Module) -> bool:
    """Return whether an ONNX file computes the outputs of ``module``, and not Python code."""
    return any(isinstance(part, OnnxRuntimeModule) for part in module.modules())


def read_graph(module: nn.Module, x: Tensor) -> ReadableGraph | UnreadableGraph:
    """Read the computation graph of a model without the wrappers of the audit.

    Args:
        module: The model: Python code, which is exported, or an ONNX file.
        x: At least two samples (N, ...).

    Returns:
        The graph, or the reason for a missing graph.
    """
    module = unwrap(module)
    sessions = [part for part in module.modules() if isinstance(part, OnnxRuntimeModule)]
    if not sessions:
        try:
            model, graph, fault = _exported(module, x.shape[1:], x.dtype)
        except UnusableInput as error:
            return UnreadableGraph(str(error))
        return ReadableGraph(model, graph, x, None, CHOSEN_BY_BATCH in fault)
    others = [type(part).__name__ for part in module.modules() if not isinstance(part, OnnxRuntimeModule | Normalized)]
    if others or len(sessions) > 1:
        return UnreadableGraph(f"there is more than an ONNX file: {', '.join(others) or 'several of them'}")
    session = sessions[0]
    model = read_onnx_model(session.path)
    embed_external_data(model, session.path)
    graph = subgraph_of(graph_from_onnx(model, session.path.parent), session.output)
    with torch.no_grad(), capture_inputs(session) as captured:
        module(x)
    drop_unread_inputs(model, session.signature.image)
    return ReadableGraph(model, graph, session.graph_values(captured[0]), session.batch)


def _exported(
    module: nn.Module, shape: torch.Size, dtype: torch.dtype
) -> tuple[onnx.ModelProto, ComputationGraph, str]:
    """Export a model and read the graph.

    Args:
        module: The model.
        shape: Shape of one sample.
        dtype: Type of the samples.

    Returns:
        The file, its graph, and the fault of the tracing for any batch size.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, *shape, generator=generator) if dtype.is_floating_point else torch.ones(2, *shape, dtype=dtype)
    model = to_onnx_graph(module, x)
    return model, graph_from_onnx(model, Path()), tracing_fault(module, x)
