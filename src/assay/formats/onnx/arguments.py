"""Attributes and inputs of ONNX operators, and the limits of their execution."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Attributes = Mapping[str, Any]
Inputs = Sequence[Tensor | None]
Operator = Callable[[Attributes, Inputs], Tensor | tuple[Tensor, ...]]

MAX_ELEMENTS = 2**28  # of a tensor that an operator enlarges; a small file can ask for any size

# Of ``TensorProto.DataType``; half precision is computed in float32.
DTYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float32, 11: torch.float64, 16: torch.float32,
}  # fmt: skip

RANGES = {torch.uint8: (0, 255), torch.int8: (-128, 127), torch.int16: (-(2**15), 2**15 - 1)}


class UnsupportedOperator(Exception):
    """Unimplemented request of a graph. The message names the request."""


def number_list(attributes: Attributes, inputs: Inputs, position: int, name: str) -> list[Any] | None:
    """Return an input as a list of numbers, or else an attribute.

    Constants come from ``attributes["known"]``, because tracers cannot follow numbers read from a tensor.

    Args:
        attributes: Attributes of the node.
        inputs: Inputs of the node.
        position: Position of the input, in newer opsets.
        name: Name of the attribute, in older opsets.

    Returns:
        The numbers, or None if the node has neither.
    """
    given = inputs[position] if len(inputs) > position else None
    found = attributes.get(name)
    if given is not None:
        found = attributes["known"][position] if position in attributes.get("known", {}) else given.tolist()
    return None if found is None else list(found) if isinstance(found, list | tuple) else [found]


def refuse_large(shape: Sequence[int]) -> None:
    """Raise UnsupportedOperator if a tensor of ``shape`` is larger than any model needs."""
    if math.prod(shape) > MAX_ELEMENTS:
        raise UnsupportedOperator(f"a tensor of shape {tuple(shape)}, which is larger than {MAX_ELEMENTS} elements")


def required_input(inputs: Inputs, position: int = 0) -> Tensor:
    """Return an input; raise UnsupportedOperator if the node omits it."""
    value = inputs[position] if len(inputs) > position else None
    if value is None:
        raise UnsupportedOperator(f"a node without its input {position}")
    return value
