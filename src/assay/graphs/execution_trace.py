"""Execution trace: statistics of every intermediate value of a model on given inputs.

Operators of torch come from a dispatch mode, the inner values of an ONNX file from ONNX Runtime without optimizations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from assay.formats.onnx.external_data import embed_external_data
from assay.formats.onnx.read import read_onnx_model
from assay.formats.onnx.runtime import OnnxRuntimeModule

if TYPE_CHECKING:
    import onnx

MAX_STEPS = 20_000  # operators of one call; a loop over single pixels makes more
MAX_ROW_ELEMENTS = 8192  # elements of one sample for the statistics of one value; of larger values, every n-th
MAX_BATCH = 16  # samples of one call
MAX_BYTES = 2**28  # inner values that one call of ONNX Runtime returns together
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
ONNX_LAYOUT = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Shape", "Constant"})
ONNX_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
SAME_ROWS = 0.01  # difference of two projected rows, as a fraction of the largest, up to which they are the same
# Stands for NaN in the statistics, so that NaN equals NaN and differs from every number.
NAN_MARK = -12_345.678
LARGEST = 1e25  # larger numbers count as this one, so that sums of squares stay finite


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

    # Operators in order of execution, with the steps that their operands come from. Without those that move numbers.
    steps: tuple[str, ...]
    values: Mapping[str, TracedValue]  # by name
    output: Tensor  # of the model
    random: tuple[str, ...]  # operators that draw random numbers
    is_complete: bool = True  # False: there were more than ``MAX_STEPS`` operators


class BatchAxis(NamedTuple):
    """Place of the samples in a value: an axis of N times ``inner`` elements."""

    axis: int
    inner: int


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
        self.graphs = {part: _WatchedGraph(part) for part in model.modules() if isinstance(part, OnnxRuntimeModule)}
        self.is_batch_fixed = any(part.batch is not None for part in self.graphs)
        one, three = (self._call(x[:count], with_rows=False) for count in (1, 3))
        self.same_steps = one.steps == three.steps  # False: the operators depend on the batch
        for name, value in one.values.items():
            if name in three.values:
                self.axes[name] = _find_axis(value.shape, three.values[name].shape)
        for batch in {
            part.batch for part in self.graphs if part.batch not in (None, 1)
        }:  # a fixed size: the first axis, if it fits
            for name, value in one.values.items():
                if batch and value.shape and not value.shape[0] % batch:
                    self.axes[name] = BatchAxis(0, value.shape[0] // batch)

    def run(self, x: Tensor, *, gradients: bool = False) -> ExecutionTrace:
        """Return the trace of the model on samples ``x`` (N, ...), with or without gradients."""
        return self._call(x, gradients=gradients)

    def find_sorted_values(self, x: Tensor) -> frozenset[str]:
        """Return the values whose rows are in an order of their own, as tokens that are sorted by expert.

        Such a row belongs to no fixed position of the batch. The rows of a batch of three are those of the three single
        samples in another order, or they move otherwise than their samples.

        Args:
            x: At least three samples (N, ...).
        """
        order = [2, 0, 1]
        calls = [self._call(part, measure=_projection) for part in (*x[:3].split(1), x[:3], x[order])]
        found = []
        for name, axis in self.axes.items():
            rows = [call.values[name].rows for call in calls if name in call.values]
            parts = [part for part in rows if part is not None]
            if isinstance(axis, BatchAxis) and len(parts) == len(calls):
                *single, batch, moved = parts
                if not _rows_follow(batch, moved, axis.inner, order) and _same_rows(torch.cat(single), batch):
                    found.append(name)
        return frozenset(found)

    def _call(
        self, x: Tensor, *, with_rows: bool = True, measure: _Measure | None = None, gradients: bool = False
    ) -> ExecutionTrace:
        recorder = _Recorder(self.axes if with_rows else None, len(x), measure or _statistics_of_samples)
        with torch.set_grad_enabled(gradients), ExitStack() as stack:
            for session, graph in self.graphs.items():
                stack.enter_context(graph.watch(session, recorder))
            recorder.sources.set(x, 0)
            stack.enter_context(recorder)
            output = self.model(x)
        complete = len(recorder.steps) < MAX_STEPS
        random = tuple(dict.fromkeys(recorder.random))
        return ExecutionTrace(tuple(recorder.steps), recorder.values, output.detach(), random, complete)


def _find_axis(one: tuple[int, ...], three: tuple[int, ...]) -> BatchAxis | Literal["none", "other"]:
    """Return the axis that is three times as long for three samples as for one."""
    if one == three:
        return "none"
    if len(one) == len(three):
        longer = [axis for axis, sizes in enumerate(zip(one, three, strict=True)) if sizes[0] != sizes[1]]
        if len(longer) == 1 and three[longer[0]] == 3 * one[longer[0]]:
            return BatchAxis(longer[0], one[longer[0]])
    return "other"


_Measure = Callable[[Tensor, BatchAxis | Literal["none"], int], tuple[Tensor | None, Tensor | None]]


class _Recorder(TorchDispatchMode):
    """Dispatch mode that records the operators and their values.

    Args:
        axes: Batch axis of each value; None: record shapes only.
        count: Number of samples.
        measure: Function of a value, its axis and the number of samples, for the rows to keep.
    """

    def __init__(
        self, axes: Mapping[str, BatchAxis | Literal["none", "other"]] | None, count: int, measure: _Measure
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


def _statistics_of_samples(
    value: Tensor, axis: BatchAxis | Literal["none"], count: int
) -> tuple[Tensor | None, Tensor | None]:
    """Return the statistics by sample, for both orders of an axis that holds samples and other things."""
    if not isinstance(axis, BatchAxis):
        return statistics(value.unsqueeze(0)), None
    moved = value.movedim(axis.axis, 0)
    if len(moved) != count * axis.inner:
        return None, None
    if axis.inner == 1:
        return statistics(moved), None
    outer = moved.reshape(count, axis.inner, *moved.shape[1:])
    inner = moved.reshape(axis.inner, count, *moved.shape[1:]).movedim(1, 0)
    return statistics(outer), statistics(inner)


def _projection(value: Tensor, axis: BatchAxis | Literal["none"], _: int) -> tuple[Tensor | None, None]:
    """Return one number for each row of the axis with the samples: a product with fixed random numbers."""
    if not isinstance(axis, BatchAxis):
        return None, None
    rows = value.movedim(axis.axis, 0).flatten(1) if value.ndim > 1 else value[:, None]
    weights = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(0))
    return _finite(rows.float()) @ weights, None


def _rows_follow(batch: Tensor, moved: Tensor, inner: int, order: Sequence[int]) -> bool:
    """Return whether the rows of a batch in another order are those of the batch, in that order.

    Args:
        batch: Projected rows of the batch.
        moved: Projected rows of the samples in another order.
        inner: Number of rows of one sample.
        order: Samples of ``moved``.
    """
    outer = batch.reshape(len(order), inner)[list(order)].flatten()
    between = batch.reshape(inner, len(order))[:, list(order)].flatten()
    bound = SAME_ROWS * float(batch.abs().amax()) + 1e-30
    return len(moved) == len(batch) and min(float((moved - part).abs().amax()) for part in (outer, between)) < bound


def _same_rows(left: Tensor, right: Tensor) -> bool:
    """Return whether two sets of projected rows are the same in any order."""
    if len(left) != len(right):
        return False
    change = (left.sort().values - right.sort().values).abs().amax()
    return float(change) < SAME_ROWS * float(right.abs().amax()) + 1e-30


def statistics(rows: Tensor) -> Tensor:
    """Return mean, minimum and maximum of each sample and channel.

    The first and the last axis of a sample both count as channels, since layers differ in their layout.

    Args:
        rows: (R, ...) numbers or truth values.

    Returns:
        (R, C, 3) float32.
    """
    if rows.ndim <= 2:
        single = rows.reshape(len(rows), -1)
        single = single[:, :: _stride(single.shape[1])].float()
        return _finite(torch.stack([single] * 3, dim=2))
    first = rows.flatten(2)  # (R, C, P)
    last = rows.flatten(1, -2).transpose(1, 2)  # (R, C, P)
    parts = [first, last]
    if rows.ndim == 4 and rows.shape[2] == rows.shape[3]:
        parts = [first]  # images (C, H, W)
    elif rows.ndim == 4 and rows.shape[1] == rows.shape[2]:
        parts = [last]  # images (H, W, C)
    parts = [part[:, :, :: _stride(part[0].numel())].float() for part in parts]
    stats = [torch.stack([part.mean(2), *part.aminmax(dim=2)], dim=2) for part in parts]
    return _finite(stats[0] if len(stats) == 1 else torch.cat(stats, dim=1))


def _stride(elements: int) -> int:
    """Return the distance between the elements to keep: odd, since sizes of layers are even."""
    stride = -(-elements // MAX_ROW_ELEMENTS)
    return stride if stride % 2 else stride + 1


def _finite(stats: Tensor) -> Tensor:
    return stats.nan_to_num(nan=NAN_MARK, posinf=LARGEST, neginf=-LARGEST).clamp(-LARGEST, LARGEST)


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


class _WatchedGraph:
    """ONNX file whose inner values are outputs as well."""

    def __init__(self, session: OnnxRuntimeModule) -> None:

        self.model = read_onnx_model(session.path)
        embed_external_data(self.model, session.path)
        self.random = [node.op_type for node in self.model.graph.node if node.op_type in ONNX_RANDOM]
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
    def watch(self, module: OnnxRuntimeModule, recorder: _Recorder) -> Iterator[None]:
        """Replace the session of ``module`` by one that records all inner values while the context is open."""
        session = module.session
        module.session = _WatchedSession(self, session, recorder)
        try:
            yield
        finally:
            module.session = session

    def run(self, feed: Mapping[str, np.ndarray], recorder: _Recorder, asked: Sequence[str]) -> list[np.ndarray]:
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
        probe = self._session(names)
        group: list[str] = []
        total = 0
        for name, result in zip(names, probe.run(names, dict(feed)), strict=True):
            # Later batches hold up to ``MAX_BATCH`` samples.
            size = MAX_BATCH * getattr(result, "nbytes", 0) // len(next(iter(feed.values())))
            if group and total + size > MAX_BYTES:
                self.groups.append((group, self._session(group)))
                group, total = [], 0
            group.append(name)
            total += size
        self.groups.append((group, self._session(group) if self.groups else probe))

    def _session(self, names: Sequence[str]) -> Any:
        import onnx
        import onnxruntime

        watched = onnx.ModelProto()
        watched.CopyFrom(self.model)
        known = {value.name for value in watched.graph.output}
        added = [onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in known]
        watched.graph.output.extend(added)
        options = onnxruntime.SessionOptions()
        # An optimization would fuse values away.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])


class _WatchedSession:
    """Stand-in for the session of an ``OnnxRuntimeModule``."""

    def __init__(self, graph: _WatchedGraph, session: Any, recorder: _Recorder) -> None:
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
