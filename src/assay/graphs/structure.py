"""Structure of a module: classes, attributes and shapes of weights, without the numbers of the weights."""

from __future__ import annotations

import enum
import functools
import hashlib
import types
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Immutable values, and objects of which a copy is the object itself.
_ATOMS: tuple[type, ...] = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(Ellipsis),
    type(NotImplemented),
    range,
)
_ATOMS += (torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size)
_SINGLETONS = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, enum.Enum, torch._ops.OpOverload)
_HEAP_TYPE = 1 << 9  # flag of classes written in Python


class _Opaque(Exception):
    """A value whose content cannot be read."""


def structure_of(model: nn.Module) -> Hashable | None:
    """Return a key that two models share if they differ in the numbers of their weights only.

    The key holds the classes of all modules, all attributes without weights, and the name, shape, type and layout of
    each weight. Tensors outside of parameters and buffers count by their content.

    Args:
        model: Any model.

    Returns:
        The key; None if an attribute cannot be read, for instance an object of compiled code.
    """
    try:
        return _Reader().read(model)
    except Exception:  # an attribute of an arbitrary model can raise anything
        return None


class _Reader:
    """Conversion of objects to hashable values. Repeated objects become a number, so that shared weights count."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self.alive: list[object] = []  # an id is unique among living objects only

    def read(self, value: Any) -> Hashable:
        kind = type(value)
        if kind in _ATOMS:
            return kind, value
        if isinstance(value, _SINGLETONS):
            return value
        if (number := self.numbers.get(id(value))) is not None:
            return "seen", number
        self.numbers[id(value)] = len(self.numbers)
        self.alive.append(value)
        if kind in (list, tuple):
            return kind, self._all(value)
        if kind in (dict, OrderedDict):
            return kind, self._all(list(value)), self._all(list(value.values()))
        if kind in (set, frozenset):
            return kind, frozenset(self.read(part) for part in value)
        if kind in (Tensor, nn.Parameter):
            return kind, _layout(value), _digest(value.detach().cpu().reshape(-1).view(torch.uint8).numpy())
        if kind is np.ndarray and value.dtype != object:
            return kind, value.dtype.str, value.shape, _digest(value)
        if kind is types.MethodType:
            return kind, value.__func__, self.read(value.__self__)
        if kind is functools.partial:
            return kind, self.read(value.func), self.read(value.args), self.read(value.keywords)
        own = [part for part in kind.__mro__ if part is not object]
        if not all(part.__flags__ & _HEAP_TYPE and not vars(part).get("__slots__") for part in own):
            raise _Opaque  # its objects hold more than their ``__dict__``
        return (kind, *(self._module(value) if isinstance(value, nn.Module) else (self.read(vars(value)),)))

    def _module(self, module: nn.Module) -> tuple[Hashable, ...]:
        attributes = dict(vars(module))
        weights = [attributes.pop(key) for key in ("_parameters", "_buffers")]
        named = tuple((name, self._weight(weight)) for group in weights for name, weight in group.items())
        return named, self.read(attributes)

    def _weight(self, weight: Tensor | None) -> Hashable:
        """Return a parameter or buffer without its numbers."""
        if weight is None:
            return None
        if type(weight) not in (Tensor, nn.Parameter):
            raise _Opaque
        if (number := self.numbers.get(id(weight))) is not None:
            return "seen", number
        self.numbers[id(weight)] = len(self.numbers)
        return type(weight), _layout(weight)

    def _all(self, values: Sequence[Any]) -> tuple[Hashable, ...]:
        return tuple(self.read(value) for value in values)


def _layout(tensor: Tensor) -> Hashable:
    if tensor.layout is not torch.strided:
        raise _Opaque
    return tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.device


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
