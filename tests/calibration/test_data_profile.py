from __future__ import annotations

from pathlib import Path

import pytest
import torch

from assay import data
from assay.calibration import file
from assay.calibration.data_profile import data_profile
from assay.core.model import ImageSpec


def of(source: str, side: int = 32, channels: int = 3) -> tuple[float, ...]:
    found = data_profile(data.load(source, ImageSpec((channels, side, side)), limit=300).split("calibration").x)
    assert found is not None
    return found


def test_fewer_than_two_pictures_are_like_nothing() -> None:
    assert data_profile(torch.rand(1, 3, 8, 8)) is None
    assert data_profile(torch.rand(0, 3, 8, 8)) is None


def test_the_numbers_are_what_they_say() -> None:
    dark, light = torch.zeros(10, 1, 32, 32), torch.ones(10, 1, 32, 32)
    brightness, spread, contrast, _, _ = data_profile(torch.cat([dark, light])) or ()
    assert brightness == pytest.approx(0.5)
    assert spread == pytest.approx(0.5, abs=0.02)
    assert contrast == pytest.approx(0.0, abs=1e-2)
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    alike = data_profile((picture + 0.01 * torch.randn(20, 3, 32, 32)).clamp(0, 1)) or ()
    apart = data_profile(torch.rand(20, 3, 32, 32)) or ()
    assert alike[4] > 1
    assert apart[4] < -1


@pytest.mark.parametrize(("source", "family"), [("digits", "digits"), ("signs:12", "drawn signs")])
@pytest.mark.parametrize("side", [16, 32, 48])
def test_size_does_not_count(source: str, family: str, side: int) -> None:
    null = file.load_shipped()
    assert null is not None
    assert null.family_of(of(source, side)) == family


@pytest.mark.parametrize(
    ("source", "family"),
    [
        ("cifar10", "photos of objects"),
        ("cifar100", "photos of objects"),
        ("gtsrb", "photos of road signs"),
        ("imagenet20", "photos of objects"),
    ],
)
def test_real_data_is_known_by_its_looks(source: str, family: str, shared: Path) -> None:
    null = file.load_shipped()
    assert null is not None
    assert null.family_of(of(str(shared / "data" / source))) == family


def test_pictures_unlike_all_reference_data_have_no_family() -> None:
    null = file.load_shipped()
    assert null is not None
    assert null.family_of(data_profile(torch.rand(64, 3, 32, 32))) == ""
    assert null.family_of(None) == ""
