"""Values in types for any JSON reader: no NaN, no NumPy scalars, no broken Unicode."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np


def jsonable(value: Any, *, not_finite: Literal["null", "text"] = "null") -> Any:
    """Return a value in plain JSON types.

    Args:
        value: Any nesting of mappings, lists and tuples over texts and numbers.
        not_finite: Replacement for NaN and the infinities: None, or their names as text.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value) if not_finite == "text" else None
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, Mapping):
        return {encodable(str(key)): jsonable(item, not_finite=not_finite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item, not_finite=not_finite) for item in value]
    return value


def encodable(text: str) -> str:
    """Return a text with lone surrogates as escapes, so that it can be written as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
