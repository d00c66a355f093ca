"""Traced graphs of models. Tracing takes seconds, so models that differ in their weights only share one graph."""

from __future__ import annotations

import contextlib
import copy
import io
import operator
import warnings
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor, fx, nn

from assay.core.errors import UnusableInput
from assay.graphs.structure import structure_of


class ExampleInputs:
    """Example inputs as a cache key.

    Inputs of the same shape and type are equal. The number of samples does not count.
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExampleInputs) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[torch.Size, torch.dtype]:
        return self.x.shape[1:], self.x.dtype


@dataclass(frozen=True)
class Trace:
    """Exported program of a model, and the same as a flat graph, for models of one structure."""

    program: torch.export.ExportedProgram  # its weights have no numbers
    graph: fx.Graph  # of ATen operators without in-place operators
    constants: dict[str, Tensor]  # tensors of the graph that are no weights of the model

    def with_weights(self, model: nn.Module) -> fx.GraphModule:
        """Return the flat graph with the weights of a model.

        Args:
            model: Model of the traced structure; the graph shares its tensors.
        """
        own, graph = _weights(model), fx.Graph()
        result = graph.graph_copy(self.graph, {})
        graph.output(result)
        names = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
        return fx.GraphModule({name: own.get(name, self.constants.get(name)) for name in names}, graph)

    @contextmanager
    def program_with_weights(self, model: nn.Module) -> Iterator[torch.export.ExportedProgram]:
        """Put the weights of a model into the exported program while the context is open.

        Args:
            model: Model of the traced structure; the program shares its tensors.
        """
        _replace_weights(self.program, own := _weights(model))
        try:
            yield self.program
        finally:
            _replace_weights(self.program, {name: weight.to("meta") for name, weight in own.items()})


@dataclass
class TraceSlot:
    """Place of the trace of one structure."""

    trace: Trace | None = None
    fault: str = ""  # reason why models of this structure cannot be traced
    checked: set[str] = field(default_factory=set)  # digests of models whose outputs the trace reproduces

    def fill(self, model: nn.Module, example: Tensor) -> Trace:
        """Trace a model and keep the result.

        Args:
            model: Model in eval mode, without gradients of its weights.
            example: (2, ...) inputs.

        Raises:
            UnusableInput: The model cannot be traced.
        """
        if self.fault:
            raise UnusableInput(self.fault)
        self.trace = None
        self.checked.clear()
        try:
            self.trace = _trace(model, example)
        except UnusableInput as fault:
            self.fault = str(fault)
            raise
        return self.trace


def trace_slot(model: nn.Module, example: Tensor) -> TraceSlot:
    """Return the place of the trace of a model: a new one, or that of models of the same structure.

    Args:
        model: Model in eval mode, without gradients of its weights.
        example: (N, ...) inputs; their shape and type count.
    """
    structure = structure_of(model)
    return TraceSlot() if structure is None else _slot(structure, ExampleInputs(example[:1].clone()))


def tracing_fault(model: nn.Module, example: Tensor) -> str:
    """Return the reason why a model cannot be traced for any batch size; empty if it can.

    The exporter to ONNX has other ways to trace. Their graph may hold for some batch sizes only.

    Args:
        model: Any model.
        example: (2, ...) inputs.
    """
    slot = trace_slot(model, example)
    if slot.trace is None and not slot.fault:
        with contextlib.suppress(UnusableInput):
            slot.fill(copy.deepcopy(model).eval().requires_grad_(False), example)
    return slot.fault


@contextmanager
def exported_program(model: nn.Module, example: Tensor, digest: str) -> Iterator[torch.export.ExportedProgram]:
    """Open the exported program of a model: traced now, or before for the same weights.

    Args:
        model: Model in eval mode, without gradients of its weights.
        example: (2, ...) inputs.
        digest: Of the model's weights.

    Raises:
        UnusableInput: The model cannot be traced.
    """
    slot = trace_slot(model, example)
    known = slot.trace if digest in slot.checked else None
    trace = known or slot.fill(model, example)
    slot.checked.add(digest)
    with trace.program_with_weights(model) as program:
        yield program


@lru_cache(maxsize=2)  # the model and its reference
def _slot(structure: Hashable, inputs: ExampleInputs) -> TraceSlot:
    del structure, inputs  # the key of the cache
    return TraceSlot()


def _weights(model: nn.Module) -> dict[str, Tensor]:
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return dict(named)


def _replace_weights(program: torch.export.ExportedProgram, weights: dict[str, Tensor]) -> None:
    for tensors in (program.state_dict, program.constants):  # constants: buffers that are not persistent
        tensors.update({name: weights[name] for name in tensors if name in weights})


def _trace(model: nn.Module, example: Tensor) -> Trace:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # torch prints the graph on failure
        # torch 2.13 uses its own deprecated pytree class while it copies a graph. A caller cannot change that.
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        try:
            program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
            # With an empty decomposition table, this only makes in-place operators functional.
            module = program.run_decompositions({}).module(check_guards=False)
        except Exception as error:  # torch.export raises many types, plain RuntimeError among them
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UnusableInput(
                f"expected a model that torch.export can trace, got the error: {reason}; "
                "variants that need the graph (int8, ONNX) are not available"
            ) from error
        graph = copy.deepcopy(module.graph)
    graph.set_codegen(fx.graph.CodeGen())
    for node in graph.nodes:
        if node.op == "output":  # the exported graph returns a tuple of one tensor
            node.args = (node.args[0][0],)
    own = _weights(model)
    names = {str(node.target) for node in graph.nodes if node.op == "get_attr"} - own.keys()
    constants = {name: operator.attrgetter(name)(module) for name in names}
    # A cached trace must not hold the weights in memory.
    _replace_weights(program, {name: weight.to("meta") for name, weight in own.items()})
    return Trace(program, graph, constants)
