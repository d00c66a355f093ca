"""The shape of a net's pictures, (C, H, W), as people and files give it."""

from __future__ import annotations

import operator
from collections.abc import Iterable

from assay.core.errors import UnusableInput

MAX_SIDE = 4096
SHORTEST = 4
"""Tokens of a text: two markers and something between them."""

Shape = tuple[int, int, int]


def side_is_sane(side: object) -> bool:
    """Whether ``side`` can be a picture's height or width in pixels."""
    return type(side) is int and 0 < side <= MAX_SIDE


def as_shape(value: object, what: str) -> Shape:
    """(C, H, W) of a tuple, list or array of three whole numbers; ``what`` names it in the error."""
    try:
        sides = [operator.index(side) for side in value] if isinstance(value, Iterable) else []
    except TypeError:
        sides = []
    if len(sides) != 3 or not all(map(side_is_sane, sides)):
        raise UnusableInput(
            f"{what}: expected (channels, height, width), whole numbers from 1 to {MAX_SIDE}, as in 3,224,224, or "
            f"one number of tokens for a model of text; "
            f"came {value!r}"
        )
    return sides[0], sides[1], sides[2]


def as_length(value: object, what: str) -> int:
    """Tokens of a text, markers included; ``what`` names it in the error."""
    if type(value) is not int or not SHORTEST <= value <= MAX_SIDE:
        raise UnusableInput(
            f"{what}: expected a text's length in tokens, from {SHORTEST} to {MAX_SIDE}; came {value!r}"
        )
    return value


def refuse_length(length: int | None, where: str) -> None:
    """Raises UnusableInput where a length of texts is given for a model of pictures."""
    if length is not None:
        raise UnusableInput(f"{where}: takes pictures; expected --shape C,H,W, came one number, {length}")


def written(shape: Shape | tuple[int]) -> str:
    """``3 x 224 x 224``, or ``64 tokens``, for people."""
    if len(shape) == 1:
        return f"{shape[0]} tokens"
    return " x ".join(map(str, shape))
