"""Input normalization as part of the model, so that all other code uses images in [0, 1]."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from assay.nn.saving import SavedWrapper

# Metadata keys in model files.
MEAN_KEY = "assay.mean"
STD_KEY = "assay.std"


class Normalized(nn.Module):
    """``net((x - mean) / std)`` for ``x`` (N, C, H, W) in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        # Not persistent: state-dict keys stay those of the wrapped architecture.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - self.mean) / self.std)

    def to_saved(self, num_classes: int | None) -> SavedWrapper:
        """Return the module inside, with mean and standard deviation as metadata."""
        values = {MEAN_KEY: self.mean, STD_KEY: self.std}
        return SavedWrapper(self.net, {key: json.dumps(value.flatten().tolist()) for key, value in values.items()})
