"""Settings of image processors as they stand in repositories."""

from __future__ import annotations

from typing import Any

import pytest

from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec
from assay.formats.huggingface.preprocessing import read_preprocessing
from assay.formats.normalization import Normalization

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"size": {"height": 32, "width": 48}}, ImageSpec((3, 32, 48))),
        ({"size": 224, "resample": 3}, ImageSpec((3, 224, 224), resample="bicubic")),
        ({"size": [32, 32], "resample": 0}, ImageSpec((3, 32, 32), resample="nearest")),
        (
            {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True},
            ImageSpec((3, 224, 224), resize=256, crop=True),
        ),
        ({"size": 256, "crop_size": 224}, ImageSpec((3, 224, 224), resize=256, crop=True)),
        (
            {"size": {"height": 256, "width": 256}, "crop_size": 224, "resample": 1},
            ImageSpec((3, 224, 224), resize=(256, 256), crop=True, resample="lanczos"),
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.875},
            ImageSpec((3, 224, 224), resize=256, crop=True),
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
            ImageSpec((3, 384, 384)),
        ),
        ({"do_center_crop": False, "crop_size": 10, "size": {"shortest_edge": 40}}, ImageSpec((3, 40, 40))),
        ({}, ImageSpec((3, 96, 96))),
    ],
)
def test_sizes(settings: dict[str, Any], expected: ImageSpec) -> None:
    assert read_preprocessing(settings | HALF, {"image_size": 96}, None, "x").inputs == expected


@pytest.mark.parametrize(
    ("settings", "mean", "std"),
    [
        ({}, 0.5, 0.5),
        ({"do_normalize": False}, 0.0, 1.0),
        ({"rescale_factor": 2 / 255}, 0.25, 0.25),
        ({"do_rescale": False}, 0.5 / 255, 0.5 / 255),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}, 0.5, 0.5),
        ({"image_processor_type": "EfficientNetImageProcessor"}, 0.5, 0.25),
        ({"image_processor_type": "EfficientNetImageProcessor", "include_top": False}, 0.5, 0.5),
    ],
)
def test_pixel_values(settings: dict[str, Any], mean: float, std: float) -> None:
    found = read_preprocessing(HALF | settings, {"image_size": 8}, None, "x").normalization
    assert found.mean == pytest.approx((mean,) * 3)
    assert found.std == pytest.approx((std,) * 3)


def test_given_values_win() -> None:
    given = Normalization((0.1,), (0.2,))
    assert read_preprocessing(HALF, {}, given, "x").normalization is given
    assert read_preprocessing(HALF, {}, given, "x", shape=(1, 8, 9)).inputs == ImageSpec((1, 8, 9))


def test_blue_green_red() -> None:
    assert read_preprocessing({"image_processor_type": "MobileViTImageProcessor"}, {}, None, "x").flip
    assert not read_preprocessing(HALF, {}, None, "x").flip


@pytest.mark.parametrize(
    "settings",
    [
        {"size": -3},
        {"size": 8, "resample": [2], "rescale_factor": -1},
        {"size": {"height": 10**9, "width": 3}},
        {"size": {"shortest_edge": "big"}},
        {"size": "big"},
        {"crop_size": [1, 2, 3]},
        {"image_std": [0.0, 1.0, 1.0]},
        {"image_mean": "x"},
        {"rescale_factor": "x"},
        {"rescale_factor": 0},
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 8}, "crop_pct": "x"},
    ],
)
def test_hostile_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(UnusableInput):
        read_preprocessing(HALF | settings, {}, None, "x")
