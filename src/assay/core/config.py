"""Settings as ``key=value`` texts: fields of attacks and stages, checked against their types.

A key with a dot names a field of a nested dataclass. ``preset=NAME`` stands for several settings, as the class lists
them in ``presets``; explicit settings override those of the preset.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from assay.core.errors import UnusableInput
from assay.core.lookup import suggestion

T = TypeVar("T")

# Fields that are not hyper-parameters.
HIDDEN = frozenset({"name"})

# Key of the setting that stands for several.
PRESET = "preset"

BOOLEANS: dict[str, bool] = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclasses.dataclass(frozen=True)
class Setting:
    """Type of one field, and whether it has no default."""

    kind: Any
    required: bool


def configure(kind: Callable[..., T], pairs: Sequence[str], *, fixed: Mapping[str, object] | None = None) -> T:
    """Return an instance of a dataclass with the given settings.

    Args:
        kind: The dataclass.
        pairs: Settings as ``key=value``.
        fixed: Values of all other fields.

    Raises:
        UnusableInput: A key or preset is unknown (the message suggests the nearest one), a value has the wrong type,
            or a required field is missing.
    """
    given = dict(fixed or {})
    values = _expand_preset(_parse(pairs), presets_of(kind))
    known = settings_of(kind, hidden=frozenset(given))
    for key in values:
        if key not in known:
            names = sorted([*known, *([PRESET] if presets_of(kind) else [])], key=lambda name: "." in name)
            hint = f"{suggestion(key, names)}known: {', '.join(names) or 'none'}"
            raise UnusableInput(f"there is no such setting: {key}; {hint}")
    missing = [key for key, setting in known.items() if setting.required and key not in values]
    if missing:
        raise UnusableInput(f"expected the setting {missing[0]}=VALUE, which has no default")
    return _build(kind, {key: _convert_setting(key, text, known[key].kind) for key, text in values.items()}, given)


def presets_of(kind: object) -> Mapping[str, tuple[str, ...]]:
    """Return the presets of a dataclass by name, each as settings ``key=value``."""
    return getattr(kind, "presets", {})


def settings_of(kind: Any, *, hidden: frozenset[str] = frozenset(), prefix: str = "") -> dict[str, Setting]:
    """Return the settable fields of a dataclass; those of nested dataclasses as ``outer.inner``.

    Args:
        kind: The dataclass.
        hidden: Names of fields to leave out.
        prefix: Text in front of each name.
    """
    types_of = typing.get_type_hints(kind)
    settings: dict[str, Setting] = {}
    for field in dataclasses.fields(kind):
        own = types_of[field.name]
        if field.name in hidden | HIDDEN:
            continue
        if dataclasses.is_dataclass(own):
            settings |= settings_of(own, prefix=f"{prefix}{field.name}.")
        else:
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            settings[f"{prefix}{field.name}"] = Setting(own, required)
    return settings


def _parse(pairs: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not key:
            raise UnusableInput(f"expected a setting as key=value, got {pair!r}")
        if key in values:
            raise UnusableInput(f"expected the setting {key} once, got it twice")
        values[key] = value
    return values


def _expand_preset(values: dict[str, str], presets: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    if PRESET not in values or not presets:  # a class without presets has no such key
        return values
    own = dict(values)
    name = own.pop(PRESET)
    if name not in presets:
        raise UnusableInput(f"setting {PRESET}: expected {' or '.join(presets)}, got {name!r}")
    return {**_parse(presets[name]), **own}


def _build(kind: Any, values: Mapping[str, object], fixed: Mapping[str, object]) -> Any:
    """Return an instance; nested dataclasses are their defaults with the given fields replaced."""
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


def _convert_setting(key: str, text: str, kind: Any) -> Any:
    try:
        return convert(text, kind)
    except ValueError:
        raise UnusableInput(f"setting {key}: expected {describe_type(kind)}, got {text!r}") from None


def convert(text: str, kind: Any) -> Any:
    """Return ``text`` as a value of the type ``kind``; raise ValueError if it is none."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _convert_to_first(text, arguments)
    if origin is Literal:
        return _require_choice(text, arguments)
    if origin is tuple:
        return _convert_to_tuple(text, arguments)
    if kind is type(None):
        _require_choice(text.lower(), ("none",))
        return None
    if kind is bool:
        return BOOLEANS[_require_choice(text.lower(), tuple(BOOLEANS))]
    if kind is float and not math.isfinite(float(text)):
        raise ValueError(text)
    if kind in (float, int, str):
        return kind(text)
    raise ValueError(f"a setting of type {kind} cannot be given as text")


def describe_type(kind: Any) -> str:
    """Return a type in words."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe_type(argument) for argument in arguments)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is tuple:
        return "numbers with commas between them" if Ellipsis in arguments else f"{len(arguments)} numbers, as in 4,7"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}.get(kind, "none")


def _convert_to_first(text: str, kinds: Sequence[Any]) -> Any:
    for kind in sorted(kinds, key=lambda kind: kind is str):  # any text is a str, so that type comes last
        try:
            return convert(text, kind)
        except ValueError:
            continue
    raise ValueError(text)


def _convert_to_tuple(text: str, kinds: Sequence[Any]) -> tuple[Any, ...]:
    parts = [part.strip() for part in text.split(",")]
    each = [kinds[0]] * len(parts) if Ellipsis in kinds else list(kinds)
    if len(parts) != len(each):
        raise ValueError(text)
    return tuple(convert(part, kind) for part, kind in zip(parts, each, strict=True))


def _require_choice(text: str, choices: Sequence[Any]) -> Any:
    if text not in choices:
        raise ValueError(text)
    return text
