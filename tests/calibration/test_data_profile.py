"""Data profile: statistics of images, and the nearest family of the shipped null."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from assay import data
from assay.calibration import file
from assay.calibration.data_profile import data_profile
from assay.core.model import ImageSpec


def profile_of(source: str, side: int = 32, channels: int = 3) -> tuple[float, ...]:
    found = data_profile(data.load(source, ImageSpec((channels, side, side)), limit=300).split("calibration").x)
    assert found is not None
    return found


def test_data_profile_fewer_than_two_images_none() -> None:
    assert data_profile(torch.rand(1, 3, 8, 8)) is None
    assert data_profile(torch.rand(0, 3, 8, 8)) is None


def test_data_profile_statistics_as_documented() -> None:
    dark, light = torch.zeros(10, 1, 32, 32), torch.ones(10, 1, 32, 32)
    brightness, spread, contrast, _, _ = data_profile(torch.cat([dark, light])) or ()
    assert brightness == pytest.approx(0.5)
    assert spread == pytest.approx(0.5, abs=0.02)
    assert contrast == pytest.approx(0.0, abs=1e-2)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    alike = data_profile((image + 0.01 * torch.randn(20, 3, 32, 32)).clamp(0, 1)) or ()
    apart = data_profile(torch.rand(20, 3, 32, 32)) or ()
    assert alike[4] > 1
    assert apart[4] < -1


@pytest.mark.parametrize(("source", "family"), [("digits", "digits"), ("signs:12", "drawn signs")])
@pytest.mark.parametrize("side", [16, 32, 48])
def test_family_of_any_image_size_same(source: str, family: str, side: int) -> None:
    null = file.load_shipped()
    assert null is not None
    assert null.family_of(profile_of(source, side)) == family


@pytest.mark.parametrize(
    ("source", "family"),
    [
        ("cifar10", "photos of objects"),
        ("cifar100", "photos of objects"),
        ("gtsrb", "photos of road signs"),
        ("imagenet20", "photos of objects"),
    ],
)
def test_family_of_real_data_recognized(source: str, family: str, shared: Path) -> None:
    null = file.load_shipped()
    assert null is not None
    assert null.family_of(profile_of(str(shared / "data" / source))) == family


def test_family_of_noise_empty() -> None:
    null = file.load_shipped()
    assert null is not None
    assert null.family_of(data_profile(torch.rand(64, 3, 32, 32))) == ""
    assert null.family_of(None) == ""
