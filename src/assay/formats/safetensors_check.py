"""Reading of safetensors files. The library checks sizes and offsets; this module refuses NaN and infinite values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from assay.core.errors import UnusableInput, first_line


@dataclass(frozen=True)
class Weights:
    """The tensors and the text metadata of one safetensors file."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_weights(path: Path) -> Weights:
    """Return the content of a safetensors file; raise UnusableInput if it is malformed, empty or not finite."""
    from safetensors import SafetensorError, safe_open

    try:
        # The library bounds the header and checks it against the file before it maps any tensor.
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        bad = [
            name
            for name, tensor in tensors.items()
            if tensor.is_floating_point()
            # One-byte floats have no isfinite.
            and not torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor).all()
        ]
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UnusableInput(
            f"{path}: is truncated or not a valid safetensors file ({first_line(error)}). "
            "Fix: download or save it again."
        ) from None
    if not tensors:
        raise UnusableInput(f"{path}: expected a model's tensors, the file holds none")
    if bad:
        raise UnusableInput(f"{path}: tensor {bad[0]!r} holds NaN or infinite values; expected finite weights")
    return Weights(tensors, metadata)
