"""Where a net's own code takes values of its input out of the tensors and into its hands."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

LEAVES = frozenset(
    {
        *("numpy", "tolist", "item", "__array__", "__bool__", "__int__", "__float__", "__index__", "data_ptr"),
        *("equal", "allclose", "is_nonzero", "__contains__"),
    }
)
FROM_SHAPES = frozenset({"shape", "size", "dim", "ndim", "numel", "dtype", "device", "is_floating_point", "__len__"})
LAYERS = frozenset({"conv1d", "conv2d", "conv3d", "linear", "embedding", "multi_head_attention_forward"})
"""Behind these a value is the net's, no longer the input's."""

DECIDES = frozenset({"gt", "lt", "ge", "le", "eq", "ne", "where", "greater", "less", "greater_equal", "less_equal"})
DECIDES |= frozenset({"__gt__", "__lt__", "__ge__", "__le__", "__eq__", "__ne__"})
"""What compares, or chooses."""

WHOLE = 64
"""Numbers of a sample that are taken at once, from which on it is the input itself that is taken in hand."""


@dataclass(frozen=True)
class TensorRead:
    """One place in the code."""

    where: str
    whole: bool = False  # much of the input is taken, and not a number or two
    decides: bool = False  # nothing leaves, but the input is compared with something there


class _Watch(TorchFunctionMode):
    """Follows the values that come from the input, up to the first weights; notes where one of them leaves."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.derived = {id(x)}
        self.kept = [x]  # so that no other tensor gets the number of one that is gone
        self.taken: list[TensorRead] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").removesuffix("__get__")
        flat = [*_tensors(args), *_tensors(list((kwargs or {}).values()))]
        ours = [tensor for tensor in flat if id(tensor) in self.derived]
        if not ours or name in FROM_SHAPES or name in LAYERS:
            return out
        if name in LEAVES:
            whole = name in ("equal", "allclose") or max(tensor.numel() for tensor in ours) >= WHOLE
            self.taken.append(TensorRead(f"Tensor.{name} in {_caller()}", whole))
        elif name in DECIDES:
            self.taken.append(TensorRead(f"{name} in {_caller()}", decides=True))
        written = flat[:1] if name in ("__setitem__", "copy_") else []
        for tensor in [*_tensors([out]), *written]:
            self.derived.add(id(tensor))
            self.kept.append(tensor)
        return out


def find_tensor_reads(net: nn.Module, x: Tensor) -> tuple[TensorRead, ...]:
    """The places where ``net`` does so on ``x`` (N, ...), each once, in the order of the run, up to where it fails."""
    x = x[:2].clone()
    watch = _Watch(x)
    try:
        with torch.no_grad(), watch:
            net(x)
    except Exception:  # a stranger's net can fail in any way; what it did before counts
        pass
    return tuple(dict.fromkeys(watch.taken))


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
    """The line of code, outside PyTorch and this file, that asked."""
    for frame in reversed(traceback.extract_stack()):
        if "/torch/" not in frame.filename and frame.filename != __file__:
            return f"{frame.name} ({frame.filename.rsplit('/', 1)[-1]}:{frame.lineno})"
    return "its code"
