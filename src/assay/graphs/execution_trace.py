"""Execution trace: statistics of every intermediate value of a model on given inputs.

Operators of torch come from a dispatch mode, the inner values of an ONNX file from ONNX Runtime without optimizations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from assay.formats.onnx.runtime import OnnxRuntimeModule
from assay.graphs.value_statistics import (
    BatchAxis,
    Measure,
    find_axis,
    projection,
    rows_follow,
    same_rows,
    statistics_of_samples,
)
from assay.graphs.watched_onnx import MAX_STEPS, WatchedGraph

# Operators that move numbers without changing them: their presence depends on the memory layout.
SKIPPED = frozenset(
    {
        *("clone", "copy", "copy_", "_unsafe_view", "_reshape_copy", "_reshape_alias", "lift_fresh_copy"),
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_"),
    }
)
# A linear layer is one operator or a product and a sum, depending on the memory layout. The sum is recorded.
PRODUCTS = frozenset({"mm", "bmm", "mv", "matmul"})
UNRECORDED = SKIPPED | PRODUCTS
SUMS = {"addmm": "add", "baddbmm": "add"}
# Their rows may be any rows of their input, as in a mixture of experts.
GATHERS = frozenset({"index", "index_select", "masked_select"})
COUNTS = frozenset({"histc", "bincount"})  # of tokens by expert, over the batch; a gate needs a further operator
# Positions of the axis and of the first element, of operators that choose a part of a value.
PARTS = {"select": (1, 2), "slice": (1, 2)}


@dataclass(frozen=True)
class TracedValue:
    """Statistics of one intermediate value."""

    name: str  # position and operator, or the value's name in an ONNX file
    shape: tuple[int, ...]
    rows: Tensor | None  # (R, C, 3) float32: mean, minimum, maximum by sample and channel; R = 1: no batch axis
    other_rows: Tensor | None = None  # the same for a batch axis that is the inner part of its axis


@dataclass(frozen=True)
class ExecutionTrace:
    """One call of a model."""

    # The first ``MAX_STEPS`` operators in order of execution, with the steps that their operands come from. Operators
    # that move numbers are left out.
    steps: tuple[str, ...]
    values: Mapping[str, TracedValue]  # by name
    output: Tensor  # of the model
    random: tuple[str, ...]  # operators that draw random numbers


class Tracer:
    """Recorder of execution traces of one model.

    The constructor runs the model twice, on one and on three samples: an axis of three times the size holds samples.

    Args:
        model: The model in evaluation mode.
        x: At least three samples (N, ...).

    Raises:
        Exception: The model fails; any of its errors.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.model = model
        self.axes: dict[str, BatchAxis | Literal["none", "other"]] = {}
        self.graphs = {part: WatchedGraph(part) for part in model.modules() if isinstance(part, OnnxRuntimeModule)}
        self.is_batch_fixed = any(part.batch is not None for part in self.graphs)
        one, three = (self._call(x[:count], with_rows=False) for count in (1, 3))
        for name, value in one.values.items():
            if name in three.values:
                self.axes[name] = find_axis(value.shape, three.values[name].shape)
        fixed = {part.batch for part in self.graphs if part.batch is not None and part.batch > 1}
        for batch in fixed:  # the samples are on the first axis, if its size fits
            for name, value in one.values.items():
                if value.shape and not value.shape[0] % batch:
                    self.axes[name] = BatchAxis(0, value.shape[0] // batch)

    def run(self, x: Tensor, *, gradients: bool = False) -> ExecutionTrace:
        """Return the trace of the model on samples ``x`` (N, ...), with or without gradients."""
        return self._call(x, gradients=gradients)

    def run_alone(self, x: Tensor) -> ExecutionTrace:
        """Return the traces of the first two inputs, each asked alone."""
        return join_traces([self.run(x[row : row + 1]) for row in (0, 1)])

    def find_sorted_values(self, x: Tensor) -> frozenset[str]:
        """Return the values whose rows are in an order of their own, as tokens that are sorted by expert.

        Such a row belongs to no fixed position of the batch. The rows of a batch of three are those of the three single
        samples in another order, or they move otherwise than their samples.

        Args:
            x: At least three samples (N, ...).
        """
        order = [2, 0, 1]
        calls = [self._call(part, measure=projection) for part in (*x[:3].split(1), x[:3], x[order])]
        found = []
        for name, axis in self.axes.items():
            rows = [call.values[name].rows for call in calls if name in call.values]
            parts = [part for part in rows if part is not None]
            if isinstance(axis, BatchAxis) and len(parts) == len(calls):
                *single, batch, moved = parts
                if not rows_follow(batch, moved, axis.inner, order) and same_rows(torch.cat(single), batch):
                    found.append(name)
        return frozenset(found)

    def _call(
        self, x: Tensor, *, with_rows: bool = True, measure: Measure | None = None, gradients: bool = False
    ) -> ExecutionTrace:
        recorder = _Recorder(self.axes if with_rows else None, len(x), measure or statistics_of_samples)
        with torch.set_grad_enabled(gradients), ExitStack() as stack:
            for session, graph in self.graphs.items():
                stack.enter_context(graph.watch(session, recorder))
            recorder.sources.set(x, 0)
            stack.enter_context(recorder)
            output = self.model(x)
        random = tuple(dict.fromkeys(recorder.random))
        return ExecutionTrace(tuple(recorder.steps), recorder.values, output.detach(), random)


class _Recorder(TorchDispatchMode):
    """Dispatch mode that records the operators and their values.

    Args:
        axes: Batch axis of each value; None: record shapes only.
        count: Number of samples.
        measure: Function of a value, its axis and the number of samples, for the rows to keep.
    """

    def __init__(
        self, axes: Mapping[str, BatchAxis | Literal["none", "other"]] | None, count: int, measure: Measure
    ) -> None:
        super().__init__()
        self.axes, self.count, self.measure = axes, count, measure
        self.steps: list[str] = []
        self.values: dict[str, TracedValue] = {}
        self.random: list[str] = []
        self.extras: dict[str, int] = {}  # number of values by the start of their names
        self.sources = _Sources()
        self._is_paused = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: torch would import its compiler for each recorder, which takes over a second."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not self._is_paused and len(self.steps) < MAX_STEPS:
            name = func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else str(func)
            operands = list(_tensors_in((*args, *kwargs.values())))
            if name in PARTS:
                self._record_part(name, args)
            if getattr(func, "is_view", False):
                return result
            if name not in SKIPPED:
                self._record_operands(name, operands)
            if name in UNRECORDED:
                self.sources.pass_on(operands, result)
            else:
                self._record_operator(func, SUMS.get(name, name), args, kwargs, result)
                self.steps[-1] += self.sources.text_of(operands)
                self.sources.set(result, len(self.steps))
        return result

    def _record_part(self, name: str, args: Sequence[Any]) -> None:
        """Record the position of a chosen part, unless it is on the first axis, which may hold the samples."""
        axis, start = (args[place] if place < len(args) else 0 for place in PARTS[name])
        if isinstance(axis, int) and isinstance(start, int) and axis % max(args[0].ndim, 1):
            self._record_extra(f"position of {name}", torch.tensor([float(start)]))

    def _record_operands(self, name: str, operands: Sequence[Tensor]) -> None:
        """Record the operands that no earlier operator computed: weights, and numbers from the code."""
        for operand in operands:
            whole = not operand.is_floating_point() and operand.dtype != torch.bool
            if operand.layout == torch.strided and not self.sources.knows(operand) and not (whole and name in GATHERS):
                self._record_extra(f"operand of {name}", operand.float() if whole else operand)

    def _record_extra(self, what: str, value: Tensor) -> None:
        """Record a value between two operators. Its name holds its number among those of the same kind."""
        start = f"{len(self.steps) + 1} {what}"
        number = self.extras[start] = self.extras.get(start, 0) + 1
        self.record(f"{start} {number}", value)

    def _record_operator(self, func: Any, name: str, args: Any, kwargs: Any, result: Any) -> None:
        step = f"{len(self.steps) + 1} {name}"
        self.steps.append(name)
        if _draws_random(func, args, kwargs):
            self.random.append(name)
        numbers = [] if func.overloadpacket.__name__ in SUMS else _numbers_of(func, args, kwargs)
        if numbers:
            self.record(f"{step} constants", torch.tensor(numbers, dtype=torch.float64))
        if name == "_local_scalar_dense" and isinstance(result, float | bool):  # the call ``item()``
            self.record(step, torch.tensor([float(result)]))
        results = result if isinstance(result, tuple | list) else (result,)
        if "norm" in name:  # the mean of a normalized value is noise
            results = results[:1]
        for number, part in enumerate(results):
            if isinstance(part, Tensor) and name not in GATHERS and name not in COUNTS:
                self.record(step if number == 0 else f"{step} output {number}", part)

    def record(self, name: str, value: Tensor) -> None:
        """Record one value, unless it holds whole numbers."""
        if not (value.is_floating_point() or value.dtype == torch.bool) or value.layout != torch.strided:
            return
        if value.is_nested or not value.numel():
            return
        axis = None if self.axes is None else self.axes.get(name)
        rows, other = None, None
        if axis is not None and axis != "other":
            rows, other = self.measure(value.detach(), axis, self.count)
        before = self.values.get(name)
        if before is not None and before.rows is not None and rows is not None:  # pieces of a fixed batch size
            rows = torch.cat([before.rows, rows])
        self.values[name] = TracedValue(name, tuple(value.shape), rows, other)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Record no operators of torch while the context is open."""
        self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False


class _Sources:
    """Steps that computed each value, by its memory. A copy or a view has the steps of the original."""

    def __init__(self) -> None:
        self._steps: dict[int, frozenset[int]] = {}
        self._references: dict[int, StorageWeakRef] = {}  # so that no later value gets the same key

    def knows(self, value: Tensor) -> bool:
        """Return whether a recorded operator computed the value, or it is an input of the model."""
        return bool(self._of(value))

    def text_of(self, operands: Iterable[Tensor]) -> str:
        """Return the steps of all operands, to follow an operator's name."""
        return "".join(f" {step}" for step in sorted(frozenset().union(*map(self._of, operands))))

    def set(self, result: object, step: int) -> None:
        """Note that a step computed all values in ``result``."""
        for value in _tensors_in((result,)):
            self._note(value, frozenset({step}))

    def pass_on(self, operands: Iterable[Tensor], result: object) -> None:
        """Note that the values in ``result`` are copies or products of the operands."""
        steps: frozenset[int] = frozenset().union(*map(self._of, operands))
        for value in _tensors_in((result,)):
            self._note(value, steps)

    def _of(self, value: Tensor) -> frozenset[int]:
        if value.layout != torch.strided:
            return frozenset()
        return self._steps.get(value.untyped_storage()._cdata, frozenset())

    def _note(self, value: Tensor, steps: frozenset[int]) -> None:
        if value.layout == torch.strided:
            storage = value.untyped_storage()
            self._steps[storage._cdata] = steps
            self._references[storage._cdata] = StorageWeakRef(storage)


def _tensors_in(values: Iterable[object]) -> Iterator[Tensor]:
    """Yield the tensors among values, and in lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors_in(value)


def _draws_random(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether an operator draws random numbers. Attention without dropout has the same tag."""
    if torch.Tag.nondeterministic_seeded not in getattr(func, "tags", ()):
        return False
    given = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)} | dict(kwargs)
    for argument in func._schema.arguments:
        value = given.get(argument.name, argument.default_value)
        if argument.name in ("dropout_p", "dropout") and not value:
            return False
        if argument.name in ("train", "training") and value is False:
            return False
    return True


def _numbers_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[float]:
    """Return the plain numbers among the arguments that enter the computation; sizes and axes do not count."""
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    # Numbers of factories and of index arithmetic are sizes.
    if not hasattr(func, "_schema") or not any(value.is_floating_point() for value in tensors):
        return []
    numbers = []
    for position, name in _number_arguments(func):
        value = args[position] if position < len(args) else kwargs.get(name)
        if isinstance(value, bool | int | float):
            numbers.append(float(value))
    return numbers


@cache
def _number_arguments(func: Any) -> tuple[tuple[int, str], ...]:
    """Return position and name of the arguments of an operator that may be numbers of the computation."""
    arguments = [(position, part.name, str(part.type)) for position, part in enumerate(func._schema.arguments)]
    return tuple(
        (position, name)
        for position, name, kind in arguments
        if "Tensor" in kind or "number" in kind or "float" in kind.lower()
    )


def join_traces(traces: Sequence[ExecutionTrace]) -> ExecutionTrace:
    """Return calls with single samples as one trace; without a value that is missing in one of them."""
    first = traces[0]
    values = {}
    for name, value in first.values.items():
        parts = [trace.values[name].rows for trace in traces if name in trace.values]
        rows = [part for part in parts if part is not None]
        if len(rows) == len(traces) and len({part.shape for part in rows}) == 1:
            joined = torch.cat(rows)  # for a single sample both orders of the axis are the same
            values[name] = replace(value, rows=joined, other_rows=None if value.other_rows is None else joined)
    output = torch.cat([trace.output for trace in traces])
    return replace(first, values=values, output=output)
