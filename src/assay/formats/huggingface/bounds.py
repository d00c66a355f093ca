"""Bounds on the numbers in a config, checked before transformers builds anything from them.

A config can ask for a billion classes or layers. The tensors of the weights bound these numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from assay.core.errors import UnusableInput

CLASS_KEYS = ("num_labels", "num_classes", "n_classes", "num_queries")
LAYER_WORDS = ("layer", "depth", "block", "stage")  # in keys of numbers that make modules
SIZE_WORDS = {"size", "sizes", "dim", "dims", "id", "ids", "width"}  # whole words of keys of other numbers
MIN_LAYERS = 256  # always allowed
FREE_SIZE = 10_000_000  # largest number without a relation to the weights; positions of long texts are below
NO_SIZES = ("token_id", "seed", "max_length", "theta", "flos")  # parts of keys of numbers that make no tensors


def refuse_large_numbers(settings: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise UnusableInput if a number in a config is far larger than the weights can explain.

    Args:
        settings: The config, with nested ones.
        tensors: The weights by name.
        where: Name of the model in error messages.
    """
    widest = max((max(tensor.shape, default=1) for tensor in tensors.values()), default=1)
    size = sum(tensor.numel() for tensor in tensors.values())
    layers = max(MIN_LAYERS, len(tensors))
    for key, value in _numbers(settings):
        name = key.lower()
        if name in CLASS_KEYS:
            most, unit = max(widest, 2), "the longest axis of its tensors"
        elif any(word in name for word in LAYER_WORDS) and not SIZE_WORDS & set(name.split("_")):
            most, unit = layers, "the number of its tensors"
        elif any(part in name for part in NO_SIZES):
            continue
        else:
            most, unit = FREE_SIZE + 10 * size, "a size in relation to its weights"
        if value > most:
            raise UnusableInput(
                f"{where}: expected at most {most} as {key[:40]} in its config ({unit}), got {str(value)[:20]}. "
                "Fix: give the config of these weights."
            )


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, int | float]]:
    """Yield each number of a config with its key. Keys of ``id2label`` and of lists are those around them."""
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        yield key, value
    elif isinstance(value, dict):
        for name, part in value.items():
            if name not in ("id2label", "label2id"):
                yield from _numbers(part, str(name))
    elif isinstance(value, list):
        for part in value:
            yield from _numbers(part, key)
