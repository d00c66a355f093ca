"""Shapes of model inputs as users and files give them: (C, H, W) of images, (L,) of texts."""

from __future__ import annotations

import operator
from collections.abc import Iterable

from assay.core.errors import UnusableInput

MAX_SIDE = 4096  # pixels or tokens
MIN_LENGTH = 4  # tokens of a text: two markers and two between them

Shape = tuple[int, int, int]


def side_is_sane(side: object) -> bool:
    """Return whether a value is a whole number from 1 to 4096."""
    return type(side) is int and 0 < side <= MAX_SIDE


def as_shape(value: object, what: str) -> Shape:
    """Return a tuple, list or array of three whole numbers as (C, H, W).

    Args:
        value: The shape as given.
        what: Name of the value in the error message.

    Raises:
        UnusableInput: The value is anything else.
    """
    try:
        sides = [operator.index(side) for side in value] if isinstance(value, Iterable) else []
    except TypeError:
        sides = []
    if len(sides) != 3 or not all(map(side_is_sane, sides)):
        raise UnusableInput(
            f"{what}: expected (channels, height, width), whole numbers from 1 to {MAX_SIDE}, as in 3,224,224, or one "
            f"number of tokens for a text model, got {value!r}"
        )
    return sides[0], sides[1], sides[2]


def as_length(value: object, what: str) -> int:
    """Return the length of a text in tokens, markers included.

    Args:
        value: The length as given.
        what: Name of the value in the error message.

    Raises:
        UnusableInput: The value is no whole number from 4 to 4096.
    """
    if type(value) is not int or not MIN_LENGTH <= value <= MAX_SIDE:
        raise UnusableInput(f"{what}: expected a text length of {MIN_LENGTH} to {MAX_SIDE} tokens, got {value!r}")
    return value


def refuse_length(length: int | None, where: str) -> None:
    """Raise UnusableInput if a text length is given for an image model."""
    if length is not None:
        raise UnusableInput(f"{where}: expected a shape (C, H, W) for an image model, got one number, {length}")


def format_shape(shape: tuple[int, ...]) -> str:
    """Return a shape for people: ``3 x 224 x 224`` or ``64 tokens``."""
    return f"{shape[0]} tokens" if len(shape) == 1 else " x ".join(map(str, shape))
