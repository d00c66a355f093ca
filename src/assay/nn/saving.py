"""Protocol for wrapper modules that write themselves into a model file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@dataclass(frozen=True)
class SavedWrapper:
    """A wrapper's part of a model file, and the module inside, which is saved next."""

    module: nn.Module
    metadata: Mapping[str, str] = field(default_factory=dict)  # rebuilds the wrapper around the loaded module
    tensors: Mapping[str, Tensor] = field(default_factory=dict)  # of the wrapper alone


@runtime_checkable
class SaveableWrapper(Protocol):
    """A module around another one that can write itself into a model file."""

    def to_saved(self, num_classes: int | None) -> SavedWrapper:
        """Return the wrapper's part of a file; ``num_classes`` is that of the whole model, None for an encoder."""
        ...
