"""State of a module that a call can change: parameters, buffers, plain attributes, variables of its code."""

from __future__ import annotations

import random
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import FunctionType, GeneratorType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MAX_PARTS = 256  # compared elements of a list or a dict
MAX_DEPTH = 6  # compared levels of lists, dicts and objects
MAX_NUMBERS = 4096  # of a tensor whose numbers are compared; a change by ``.data`` leaves its version as it is
# Attributes of every module.
INTERNAL = frozenset(vars(nn.Module()))
# The code of these packages holds no state of a model outside its attributes.
KNOWN_PACKAGES = frozenset({"torch", "torchvision", "timm", "transformers", "assay"})


def state_of(model: nn.Module) -> dict[str, object]:
    """Return the state by name. Two states are equal if no call in between changed anything.

    Tensors count by identity and version, other attributes by value.
    """
    state: dict[str, object] = {}
    for prefix, module in model.named_modules():
        start = f"{prefix}." if prefix else ""
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            state[start + name] = _plain(tensor)
        own = {name: value for name, value in vars(module).items() if name not in INTERNAL}
        variables = {**own, **_variables_of_code(type(module)), **_variables_of_hooks(module)}
        for name, value in variables.items():
            with suppress(Exception):  # an attribute may be anything
                state[start + name] = _plain(value)
    return {name: value for name, value in state.items() if value is not None}


def changed_names(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Return the names of the changed parts of two states, sorted."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def runs_foreign_code(model: nn.Module) -> bool:
    """Return whether a call runs code of another package than the known ones: of a class, a hook or an attribute."""
    for module in model.modules():
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values(), vars(module).get("forward"))
        if not _is_known(type(module)) or any(hook is not None and not _is_known(hook) for hook in hooks):
            return True
    return False


def _variables_of_code(kind: type[nn.Module]) -> dict[str, Any]:
    """Return the class attributes, and the variables of all methods of a class."""
    if not hasattr(kind.forward, "__code__") or _is_known(kind):
        return {}
    found = {f"class {name}": value for name, value in vars(kind).items() if not name.startswith("__")}
    for method in (kind.forward, *vars(kind).values()):
        found |= _variables_of_function(method)
    return found


def _variables_of_hooks(module: nn.Module) -> dict[str, Any]:
    """Return the variables of the hooks of a module, and of functions among its attributes."""
    found: dict[str, Any] = {}
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values(), *vars(module).values())
    for number, hook in enumerate(hooks):
        part = _variables_of_function(hook)
        found |= {f"hook {number} {name}": value for name, value in part.items()}
    return found


def _variables_of_function(function: object) -> dict[str, Any]:
    """Return the global variables, the closure and the defaults of a function."""
    function = getattr(function, "__func__", function)  # of a method
    code = getattr(function, "__code__", None)
    if code is None or _is_known(function):
        return {}
    found = {f"global {name}": function.__globals__.get(name) for name in code.co_names}  # type: ignore[attr-defined]
    own = {"defaults": function.__defaults__, "attributes": vars(function)}  # type: ignore[attr-defined]
    return found | dict(_closure(function)) | own


def _is_known(code: object) -> bool:
    name = code.__name__ if isinstance(code, ModuleType) else getattr(code, "__module__", "")
    return str(name).partition(".")[0] in KNOWN_PACKAGES


def _closure(function: object) -> Iterator[tuple[str, Any]]:
    for number, cell in enumerate(getattr(function, "__closure__", None) or ()):
        with suppress(ValueError):  # an empty cell
            yield f"closure {number}", cell.cell_contents


def _plain(value: object, depth: int = MAX_DEPTH) -> object:
    """Return a comparable copy of plain values, tensors and generators; None for anything else."""
    if isinstance(value, bool | int | float | str):
        return ("value", value)
    if isinstance(value, Tensor):
        return ("tensor", id(value), value._version, _checksum(value))
    if isinstance(value, np.ndarray | bytes | bytearray | memoryview):
        return ("bytes", zlib.adler32(np.ascontiguousarray(value).data))
    if isinstance(value, GeneratorType) and value.gi_frame is not None:
        return ("generator", value.gi_frame.f_lasti, str(value.gi_frame.f_locals))
    if type(value).__module__ in ("itertools", "array", "builtins") and isinstance(value, Iterator):
        return ("iterator", str(value.__reduce__()))
    if callable(getattr(value, "cache_info", None)):
        return ("cache", str(value.cache_info()))  # type: ignore[attr-defined]
    if isinstance(value, random.Random):
        return ("random", value.getstate())
    if isinstance(value, torch.Generator):
        return ("random", bytes(value.get_state().numpy()))
    if isinstance(value, np.random.Generator):
        return ("random", str(value.bit_generator.state))
    if depth and isinstance(value, list | tuple | set | frozenset | deque):
        return ("list", len(value), tuple(_plain(part, depth - 1) for part in list(value)[:MAX_PARTS]))
    if isinstance(value, type | FunctionType | ModuleType):
        return None if _is_known(value) else _plain_numbers(value)
    if depth and isinstance(value, Mapping):
        parts = list(value.items())[:MAX_PARTS]
        return ("dict", len(value), tuple((str(key), _plain(part, depth - 1)) for key, part in parts))
    if depth and not isinstance(value, nn.Module) and not _is_known(type(value)):
        return _plain(vars(value), depth - 1) if hasattr(value, "__dict__") else None
    return None


def _plain_numbers(value: object) -> object:
    """Return the plain values among the attributes of a class, a function or a Python module."""
    found = list(vars(value).items())
    return tuple((name, part) for name, part in found if isinstance(part, bool | int | float | str | bytes))


def _checksum(value: Tensor) -> int:
    """Return a checksum of some numbers of a tensor, evenly spread."""
    if value.layout != torch.strided or value.device.type != "cpu" or not value.numel():
        return 0
    numbers = value.detach().flatten()[:: -(-value.numel() // MAX_NUMBERS)]
    return zlib.adler32(numbers.contiguous().view(torch.uint8).numpy().data)
