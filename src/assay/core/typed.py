"""Check of foreign values against type annotations."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin


def matches(value: object, annotation: Any) -> bool:
    """Return True if a value has the annotated type. A truth value is no number; a whole number is also a float.

    Args:
        value: Value of JSON types, lists as tuples.
        annotation: int, float, str, bool, None, a union, a literal, or a tuple of those.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(matches(value, each) for each in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        wanted = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return len(value) == len(wanted) and all(map(matches, value, wanted))
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is None or annotation is type(None):
        return value is None
    return type(value) is annotation
