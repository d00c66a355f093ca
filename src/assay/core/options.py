"""Options of a model, declared once for the Python API, the command line, batches and benches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ModelOptions:
    """Options for loading a model. None: not given; the model file or a default decides."""

    arch: str | None = None  # architecture of a bare .safetensors file
    shape: Sequence[int] | None = None  # (C, H, W) of the input images, or (L,) of texts in tokens
    mean: Sequence[float] | None = None  # normalization: one value a channel, for pixels in [0, 1]
    std: Sequence[float] | None = None
    features: bool = False  # cut a classifier before its last linear layer
    pooling: str | None = None  # of a Hugging Face encoder: pooler, cls or mean
    output: str | None = None  # name of the logits among several outputs

    def as_keywords(self) -> dict[str, Any]:
        """Return the options as keyword arguments of ``assay.audit`` and ``assay.formats.load``."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
