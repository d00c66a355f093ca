"""``-o key=value``: the fields of attacks and stages, nested ones with dots, checked against their types.

``-o preset=NAME`` stands for several settings, which a class names in its ``presets``; those beside it count first.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from assay.core.errors import UnusableInput

T = TypeVar("T")
HIDDEN = frozenset({"name"})
"""Fields that are no hyper-parameters."""

PRESET = "preset"
"""The setting that stands for several."""

WORDS: dict[str, bool] = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def configured(kind: Callable[..., T], pairs: Sequence[str], *, fixed: Mapping[str, object] | None = None) -> T:
    """``kind``, a dataclass, with the settings ``key=value``; ``fixed`` are fields that are not the user's to set.

    Raises UnusableInput for a key that is not there, with the nearest that is, for a value of the wrong type, for a
    preset that is not there, and for a field that has to be given.
    """
    given = dict(fixed or {})
    values = _with_preset(_parsed(pairs), presets_of(kind))
    known = settings_of(kind, hidden=frozenset(given))
    for key in values:
        if key not in known:
            raise UnusableInput(_unknown(key, [*known, *([PRESET] if presets_of(kind) else [])]))
    missing = [key for key, setting in known.items() if setting.required and key not in values]
    if missing:
        raise UnusableInput(f"expected -o {missing[0]}=VALUE, which has no default")
    return _built(kind, {key: _converted(key, text, known[key].kind) for key, text in values.items()}, given)


def presets_of(kind: object) -> Mapping[str, tuple[str, ...]]:
    """What ``-o preset=NAME`` stands for, by name: settings as ``key=value``; empty where there are none."""
    return getattr(kind, "presets", {})


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field that can be set."""

    kind: Any  # its type
    required: bool


def settings_of(kind: Any, *, hidden: frozenset[str] = frozenset(), prefix: str = "") -> dict[str, Setting]:
    """The fields of a dataclass, those of nested ones as ``outer.inner``."""
    types_of = typing.get_type_hints(kind)
    found: dict[str, Setting] = {}
    for field in dataclasses.fields(kind):
        own = types_of[field.name]
        if field.name in hidden | HIDDEN:
            continue
        if dataclasses.is_dataclass(own):
            found |= settings_of(own, prefix=f"{prefix}{field.name}.")
        else:
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            found[f"{prefix}{field.name}"] = Setting(own, required)
    return found


def _parsed(pairs: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UnusableInput(f"expected -o key=value, came {pair!r}")
        if key.strip() in values:
            raise UnusableInput(f"-o {key.strip()} came twice")
        values[key.strip()] = value.strip()
    return values


def _with_preset(values: dict[str, str], presets: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    if PRESET not in values or not presets:  # of what has none it is a key that is not there
        return values
    own = dict(values)
    name = own.pop(PRESET)
    if name not in presets:
        raise UnusableInput(f"-o {PRESET}: expected {' or '.join(presets)}, came {name!r}")
    return {**_parsed(presets[name]), **own}


def _unknown(key: str, known: Sequence[str]) -> str:
    # Someone who writes `size` for `patch.size` is near too.
    near = difflib.get_close_matches(key, known, n=1) or [name for name in known if name.endswith(f".{key}")]
    hint = f"did you mean {near[0]}? " if near else ""
    plain_first = sorted(known, key=lambda name: "." in name)
    return f"-o {key}: there is no such setting; {hint}known: {', '.join(plain_first) or 'none'}"


def _built(kind: Any, values: Mapping[str, object], fixed: Mapping[str, object]) -> Any:
    """An instance whose nested dataclasses are their defaults with the settings below them replaced."""
    own: dict[str, Any] = dict(fixed)
    nested: dict[str, dict[str, object]] = {}
    for key, value in values.items():
        outer, dot, inner = key.partition(".")
        if dot:
            nested.setdefault(outer, {})[inner] = value
        else:
            own[key] = value
    defaults: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(kind)}
    own |= {outer: dataclasses.replace(defaults[outer], **inner) for outer, inner in nested.items()}
    return kind(**own)


def _converted(key: str, text: str, kind: Any) -> Any:
    try:
        return convert(text, kind)
    except ValueError:
        raise UnusableInput(f"-o {key}: expected {describe(kind)}, came {text!r}") from None


def convert(text: str, kind: Any) -> Any:
    """``text`` as a value of the type ``kind``; raises ValueError where it is none."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _first_that_fits(text, arguments)
    if origin is Literal:
        return _one_of(text, arguments)
    if origin is tuple:
        return _several(text, arguments)
    if kind is type(None):
        return {"none": None}[_one_of(text.lower(), ("none",))]
    if kind is bool:
        return WORDS[_one_of(text.lower(), tuple(WORDS))]
    if kind is float:
        return _finite(text)
    if kind in (int, str):
        return kind(text)
    raise ValueError(f"a setting of type {kind} cannot be given as text")


def describe(kind: Any) -> str:
    """A type in words."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(argument) for argument in arguments)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is tuple:
        return "numbers with commas between them" if Ellipsis in arguments else f"{len(arguments)} numbers, as in 4,7"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}.get(kind, "none")


def _first_that_fits(text: str, kinds: Sequence[Any]) -> Any:
    for kind in sorted(kinds, key=lambda kind: kind is str):  # any text at all is a str, so that comes last
        try:
            return convert(text, kind)
        except ValueError:
            continue
    raise ValueError(text)


def _several(text: str, kinds: Sequence[Any]) -> tuple[Any, ...]:
    parts = [part.strip() for part in text.split(",")]
    each = [kinds[0]] * len(parts) if Ellipsis in kinds else list(kinds)
    if len(parts) != len(each):
        raise ValueError(text)
    return tuple(convert(part, kind) for part, kind in zip(parts, each, strict=True))


def _one_of(text: str, choices: Sequence[Any]) -> Any:
    if text not in choices:
        raise ValueError(text)
    return text


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
