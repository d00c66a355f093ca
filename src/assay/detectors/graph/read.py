"""The computation graph of a model under audit, read once for all the detectors that look at it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.core.model import digest_of_module
from assay.formats.onnx.load import OnnxNet, checked_model
from assay.graphs.ir import ComputationGraph, graph_from_onnx, subgraph_of
from assay.nn.log_probs import LogProbabilities
from assay.nn.normalized import Normalized
from assay.nn.unit_margin import UnitMargin
from assay.stages.export import graph_of

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Read:
    """A graph, and samples as it takes them."""

    model: onnx.ModelProto
    flow: ComputationGraph
    x: Tensor
    batch: int | None  # so many samples at a time; None: any number


@dataclass(frozen=True)
class Unread:
    """Why there is no graph."""

    reason: str


def own(net: nn.Module) -> nn.Module:
    """``net`` without what the audit put around it."""
    while isinstance(net, UnitMargin | LogProbabilities):
        net = net.net
    return net


def runs_a_file(net: nn.Module) -> bool:
    """Whether an ONNX file computes what ``net`` says, and no code."""
    return any(isinstance(module, OnnxNet) for module in net.modules())


def read_graph(net: nn.Module, x: Tensor) -> Read | Unread:
    """The graph of ``net``, whatever an audit put around it, for samples ``x`` (N, ...), at least two."""
    import onnx

    net = own(net)
    sessions = [module for module in net.modules() if isinstance(module, OnnxNet)]
    if sessions:
        around = [type(module).__name__ for module in net.modules() if not isinstance(module, OnnxNet | Normalized)]
        if around or len(sessions) > 1:
            return Unread(f"there is more than an ONNX file: {', '.join(around) or 'several of them'}")
        model = checked_model(sessions[0].path)
        flow = subgraph_of(graph_from_onnx(model, sessions[0].path.parent), sessions[0].output)
        # That they lie in the file's folder, and how large they are, checked_model has looked at.
        onnx.load_external_data_for_model(model, str(sessions[0].path.parent))
        return Read(model, flow, _as_given(net, sessions[0], x), sessions[0].batch)
    try:
        model, flow = _exported(net, digest_of_module(net), x.shape[1:], x.dtype)
    except UnusableInput as why:
        return Unread(str(why))
    return Read(model, flow, x, None)


@lru_cache(maxsize=2)
def _exported(
    net: nn.Module, digest: str, shape: torch.Size, dtype: torch.dtype
) -> tuple[onnx.ModelProto, ComputationGraph]:
    """Kept for the next detector, with the reference's: exporting takes seconds. ``digest``: trained, it is another."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, *shape, generator=generator) if dtype.is_floating_point else torch.ones(2, *shape, dtype=dtype)
    model = graph_of(net, x)
    return model, graph_from_onnx(model, Path())


def _as_given(net: nn.Module, session: OnnxNet, x: Tensor) -> Tensor:
    """``x`` as the session's graph gets it: normalized, in its layout."""
    seen: list[Tensor] = []
    handle = session.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    try:
        with torch.no_grad():
            net(x)
    finally:
        handle.remove()
    return seen[0].permute(0, 2, 3, 1) if session.channels_last else seen[0]
