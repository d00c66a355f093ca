"""State of a module that a call can change: parameters, buffers, plain attributes, variables of its code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from torch import Tensor, nn

MAX_PARTS = 32  # compared elements of a list or a dict
MAX_ARRAY_BYTES = 4096  # compared bytes of an array
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
        for name, value in {**own, **_variables_of_code(type(module))}.items():
            with suppress(Exception):  # an attribute may be anything
                state[start + name] = _plain(value)
    return {name: value for name, value in state.items() if value is not None}


def changed_names(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Return the names of the changed parts of two states, sorted."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _variables_of_code(kind: type[nn.Module]) -> dict[str, Any]:
    """Return the class attributes, global variables and closure of the ``forward`` of a class."""
    code = getattr(kind.forward, "__code__", None)
    if code is None or kind.__module__.partition(".")[0] in KNOWN_PACKAGES:
        return {}
    found = {f"class {name}": value for name, value in vars(kind).items() if not name.startswith("__")}
    found |= {f"global {name}": kind.forward.__globals__.get(name) for name in code.co_names}
    return found | dict(_closure(kind)) | {"defaults": kind.forward.__defaults__}


def _closure(kind: type[nn.Module]) -> Iterator[tuple[str, Any]]:
    for number, cell in enumerate(kind.forward.__closure__ or ()):
        with suppress(ValueError):  # an empty cell
            yield f"closure {number}", cell.cell_contents


def _plain(value: object, depth: int = 2) -> object:
    """Return a comparable copy of plain values and tensors; None for anything else."""
    if isinstance(value, bool | int | float | str):
        return ("value", value)
    if isinstance(value, Tensor):
        return ("tensor", id(value), value._version)
    if isinstance(value, np.ndarray):
        return ("array", value.tobytes()[:MAX_ARRAY_BYTES])
    if depth and isinstance(value, list | tuple | set | frozenset):
        return ("list", len(value), tuple(_plain(part, depth - 1) for part in list(value)[:MAX_PARTS]))
    if depth and isinstance(value, dict):
        parts = list(value.items())[:MAX_PARTS]
        return ("dict", len(value), tuple((str(key), _plain(part, depth - 1)) for key, part in parts))
    return None
