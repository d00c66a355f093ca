"""Trial of the usual normalizations on labelled samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assay.auditing.normalization_trial import try_normalizations
from assay.core.dataset import Split
from assay.formats import from_module


class Brightness(nn.Module):
    """Classes by the brightness of the first channel, for values of a given range."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        level = (x[:, :1].mean((2, 3)) - self.low) / (self.high - self.low)
        return -((level - (torch.arange(5) + 0.5) / 5) ** 2)


def samples() -> Split:
    y = torch.arange(5).repeat(20)
    x = torch.rand(100, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    x[:, 0] = ((y + 0.5) / 5).view(-1, 1, 1)
    return Split(x, y)


def test_range_that_fits_is_named_with_its_options() -> None:
    artifact = from_module(Brightness(0, 255), shape=(3, 4, 4))
    found = try_normalizations(artifact, samples(), 0.2)
    assert (
        found == "with values from 0 to 255, it is right on 100% of 100 samples. Fix: give mean 0 and std 0.00392156863"
    )


def test_given_normalization_is_replaced_in_the_trial() -> None:
    artifact = from_module(Brightness(-1, 1), shape=(3, 4, 4), mean=[0.0], std=[1.0])
    assert "Fix: give mean 0.5 and std 0.5" in try_normalizations(artifact, samples(), 0.2)


def test_good_models_and_models_of_another_range_get_no_advice() -> None:
    good, bad = (from_module(Brightness(*ends), shape=(3, 4, 4)) for ends in ((0, 1), (700, 800)))
    assert try_normalizations(good, samples(), 1.0) == ""
    assert try_normalizations(bad, samples(), 0.2) == ""
    assert try_normalizations(good, Split(samples().x, None), None) == ""
