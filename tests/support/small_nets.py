"""A small model in memory and as ONNX."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn


def small_model() -> nn.Module:
    """Return a model (N, 3, 8, 8) -> 5 logits."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()


def export_onnx(model: nn.Module, path: Path, *, batch: int | None = None) -> None:
    """Write a model of (N, 3, 8, 8) as ONNX, with a fixed batch size unless ``batch`` is None."""
    dynamic = None if batch else ({0: torch.export.Dim("N")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            model, (torch.rand(batch or 2, 3, 8, 8),), path, dynamic_shapes=dynamic, verbose=False, external_data=False
        )
