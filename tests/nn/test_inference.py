"""Tests of batched inference."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.nn.inference import batch_size_for, forward_batched


@pytest.mark.parametrize(
    ("shape", "batch"), [((3, 32, 32), 256), ((3, 96, 96), 28), ((3, 224, 224), 16), ((1, 8, 8), 256), ((64,), 256)]
)
def test_larger_images_get_smaller_batches(shape: tuple[int, ...], batch: int) -> None:
    assert batch_size_for(torch.empty(1, *shape)) == batch


def test_batches_are_complete_and_in_order() -> None:
    x, fractions = torch.arange(600.0)[:, None], []
    assert torch.equal(forward_batched(nn.Identity(), x, progress=fractions.append), x)
    assert fractions == pytest.approx([1 / 3, 2 / 3, 1])
