"""What ONNX operators are written with: their attributes and inputs, and what cannot be run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Attributes = Mapping[str, Any]
Inputs = Sequence[Tensor | None]
Operator = Callable[[Attributes, Inputs], Tensor | tuple[Tensor, ...]]

MOST_ELEMENTS = 2**28
"""Of a tensor that an operator makes larger than its inputs are: a small file can ask for any size."""

DTYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float32, 11: torch.float64, 16: torch.float32,
}  # fmt: skip
"""Of ``TensorProto.DataType``; half precision is computed in float32."""

RANGES = {torch.uint8: (0, 255), torch.int8: (-128, 127), torch.int16: (-(2**15), 2**15 - 1)}


class Unsupported(Exception):
    """What the graph asks for is not among what is written here; the message says what."""


def numbers(attributes: Attributes, inputs: Inputs, place: int, name: str) -> list[Any] | None:
    """Input ``place`` as a list, or else the attribute ``name``; None where there is neither.

    Of a constant, what ``known`` says of it: tracers do not see through numbers that are read off a tensor.
    """
    given = inputs[place] if len(inputs) > place else None
    found = attributes.get(name)
    if given is not None:
        found = attributes["known"][place] if place in attributes.get("known", {}) else given.tolist()
    return None if found is None else list(found) if isinstance(found, list | tuple) else [found]


def check_size(shape: Sequence[int]) -> None:
    """Raises Unsupported where a tensor of ``shape`` is larger than any model needs."""
    if math.prod(shape) > MOST_ELEMENTS:
        raise Unsupported(f"a tensor of shape {tuple(shape)}, which is larger than {MOST_ELEMENTS} elements")


def needed(inputs: Inputs, place: int = 0) -> Tensor:
    value = inputs[place] if len(inputs) > place else None
    if value is None:
        raise Unsupported(f"a node without its input {place}")
    return value
