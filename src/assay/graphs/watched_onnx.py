"""Recording of the inner values of an ONNX file, by ONNX Runtime without optimizations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from assay.formats.onnx.external_data import embed_external_data
from assay.formats.onnx.read import read_onnx_model
from assay.formats.onnx.runtime import OnnxRuntimeModule
from assay.formats.onnx.session import watching_session
from assay.graphs.ir import RANDOM_OPERATORS

if TYPE_CHECKING:
    import onnx

MAX_STEPS = 20_000  # operators of one call; a loop over single pixels makes more
MAX_BATCH = 16  # samples of one call
MAX_BYTES = 2**28  # inner values that one call of ONNX Runtime returns together
ONNX_LAYOUT = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Shape", "Constant"})


class Recorder(Protocol):
    """Receiver of the inner values."""

    steps: list[str]
    values: dict[str, Any]
    random: list[str]
    count: int  # number of samples

    def record(self, name: str, value: Tensor) -> None:
        """Record one value."""

    def pause(self) -> AbstractContextManager[None]:
        """Record no operators of torch while the context is open."""


class WatchedGraph:
    """ONNX file whose inner values are outputs as well."""

    def __init__(self, session: OnnxRuntimeModule) -> None:
        self.model = read_onnx_model(session.path)
        embed_external_data(self.model, session.path)
        self.random = [node.op_type for node in self.model.graph.node if node.op_type in RANDOM_OPERATORS]
        self.random += ["Dropout" for node in self.model.graph.node if _is_training_dropout(node, self.model)]
        inner = [
            (name, node.op_type)
            for node in self.model.graph.node
            if node.op_type not in ONNX_LAYOUT
            for name in node.output
            if name
        ]
        self.operators = dict(inner[:MAX_STEPS])  # by name of the value
        self.groups: list[tuple[list[str], Any]] = []  # names, and the session that returns them

    @contextmanager
    def watch(self, module: OnnxRuntimeModule, recorder: Recorder) -> Iterator[None]:
        """Replace the session of ``module`` by one that records all inner values while the context is open."""
        session = module.session
        module.session = _WatchedSession(self, session, recorder)
        try:
            yield
        finally:
            module.session = session

    def run(self, feed: Mapping[str, np.ndarray], recorder: Recorder, asked: Sequence[str]) -> list[np.ndarray]:
        """Run the graph, and record its inner values.

        Args:
            feed: Inputs by name.
            recorder: Receives the values.
            asked: Names of the outputs to return.
        """
        if not self.groups:
            self._start(feed)
        found: dict[str, np.ndarray] = {}
        recorder.random += self.random
        recorder.count = len(next(iter(feed.values())))
        for names, session in self.groups:
            for name, result in zip(names, session.run(names, dict(feed)), strict=True):
                if name in asked:
                    found[name] = np.asarray(result)
                if name in self.operators and isinstance(result, np.ndarray) and result.dtype.kind in "fb":
                    step = f"{self.operators[name]} {name}"
                    if step not in recorder.values:
                        recorder.steps.append(self.operators[name])
                    recorder.record(step, torch.from_numpy(np.ascontiguousarray(result)))
        return [found[name] for name in asked]

    def _start(self, feed: Mapping[str, np.ndarray]) -> None:
        """Start the sessions. Each returns a part of the values, so that their memory stays bounded."""
        outputs = [value.name for value in self.model.graph.output]
        names = [*self.operators, *(name for name in outputs if name not in self.operators)]
        probe = watching_session(self.model, names)
        group: list[str] = []
        total = 0
        for name, result in zip(names, probe.run(names, dict(feed)), strict=True):
            # Later batches hold up to ``MAX_BATCH`` samples.
            size = MAX_BATCH * getattr(result, "nbytes", 0) // len(next(iter(feed.values())))
            if group and total + size > MAX_BYTES:
                self.groups.append((group, watching_session(self.model, group)))
                group, total = [], 0
            group.append(name)
            total += size
        self.groups.append((group, watching_session(self.model, group) if self.groups else probe))


class _WatchedSession:
    """Stand-in for the session of an ``OnnxRuntimeModule``."""

    def __init__(self, graph: WatchedGraph, session: Any, recorder: Recorder) -> None:
        self.graph, self.session, self.recorder = graph, session, recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def run(self, names: Sequence[str] | None, feed: Mapping[str, np.ndarray], *_: Any) -> list[np.ndarray]:
        """Return the outputs ``names`` for the inputs ``feed``; None: all outputs."""
        asked = names or [value.name for value in self.session.get_outputs()]
        with self.recorder.pause():
            return self.graph.run(feed, self.recorder, asked)


def _is_training_dropout(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    """Return whether a node is a dropout that is active, or may become so by the input."""
    import onnx

    if node.op_type != "Dropout" or len(node.input) < 3 or not node.input[2]:
        return False
    constants = {value.name: value for value in model.graph.initializer}
    for other in model.graph.node:
        if other.op_type == "Constant" and node.input[2] in other.output and other.attribute:
            constants[node.input[2]] = other.attribute[0].t
    mode = constants.get(node.input[2])
    return mode is None or bool(onnx.numpy_helper.to_array(mode).any())
