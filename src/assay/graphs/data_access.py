"""Detection of reads of tensor values in ``forward``: ``.item()``, ``.tolist()``, data-dependent branches.

Reads count only for values computed from the input without weights.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Functions that move tensor values into Python.
READS = frozenset(
    {
        *("numpy", "tolist", "item", "__array__", "__bool__", "__int__", "__float__", "__index__", "data_ptr"),
        *("equal", "allclose", "is_nonzero", "__contains__"),
    }
)
SHAPE_QUERIES = frozenset({"shape", "size", "dim", "ndim", "numel", "dtype", "device", "is_floating_point", "__len__"})
# Outputs of these layers depend on weights and no longer count as input.
LAYERS = frozenset({"conv1d", "conv2d", "conv3d", "linear", "embedding", "multi_head_attention_forward"})
COMPARISONS = frozenset({"gt", "lt", "ge", "le", "eq", "ne", "where", "greater", "less", "greater_equal", "less_equal"})
COMPARISONS |= frozenset({"__gt__", "__lt__", "__ge__", "__le__", "__eq__", "__ne__"})

BULK_READ = 64  # values per read from which the read counts as a read of the input itself


@dataclass(frozen=True)
class TensorRead:
    """A read or comparison of input values in the code."""

    location: str  # function and line
    bulk: bool = False  # reads much of the input, not just a few values
    is_comparison: bool = False  # compares values of the input, but reads none


class _ReadRecorder(TorchFunctionMode):
    """Tracks values computed from the input up to the first weights, and records reads of these values."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.tracked = {id(x)}
        self.alive = [x]  # prevents the reuse of ids
        self.reads: list[TensorRead] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").removesuffix("__get__")
        flat = [*_tensors(args), *_tensors(list((kwargs or {}).values()))]
        tracked = [tensor for tensor in flat if id(tensor) in self.tracked]
        if not tracked or name in SHAPE_QUERIES or name in LAYERS:
            return out
        if name in READS:
            bulk = name in ("equal", "allclose") or max(tensor.numel() for tensor in tracked) >= BULK_READ
            self.reads.append(TensorRead(f"Tensor.{name} in {_caller()}", bulk))
        elif name in COMPARISONS:
            self.reads.append(TensorRead(f"{name} in {_caller()}", is_comparison=True))
        written = flat[:1] if name in ("__setitem__", "copy_") else []
        for tensor in [*_tensors([out]), *written]:
            self.tracked.add(id(tensor))
            self.alive.append(tensor)
        return out


def find_tensor_reads(model: nn.Module, x: Tensor) -> tuple[TensorRead, ...]:
    """Run ``model`` once and find its reads of input values.

    Args:
        model: Model in eval mode.
        x: (N, ...) samples; the first two are used.

    Returns:
        Each read once, in execution order, up to the first exception.
    """
    x = x[:2].clone()
    recorder = _ReadRecorder(x)
    try:
        with torch.no_grad(), recorder:
            model(x)
    except Exception:  # third-party code can raise anything; the reads before the exception count
        pass
    return tuple(dict.fromkeys(recorder.reads))


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
        elif isinstance(value, dict):
            found += _tensors(list(value.values()))
    return found


def _caller() -> str:
    """Return the calling line outside of PyTorch and this file."""
    for frame in reversed(traceback.extract_stack()):
        if "/torch/" not in frame.filename and frame.filename != __file__:
            return f"{frame.name} ({frame.filename.rsplit('/', 1)[-1]}:{frame.lineno})"
    return "its code"
