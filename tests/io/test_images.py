"""Tests of arrays as PNG images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from assay.core.finding import Evidence
from assay.io.images import change_map, data_uri, encode_input, to_image, trigger_image


@pytest.mark.parametrize("channels", [1, 3])
def test_input_survives_a_png_file(channels: int) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (channels, 5, 6), dtype=np.uint8)
    with Image.open(io.BytesIO(encode_input(levels.astype(np.float32) / 255))) as image:
        assert image.mode == {1: "L", 3: "RGB"}[channels]
        decoded = np.asarray(image).reshape(5, 6, channels).transpose(2, 0, 1)
    assert np.array_equal(decoded, levels)


def test_values_that_are_not_finite_or_out_of_range_are_clipped() -> None:
    array = np.array([[np.nan, np.inf], [-1.0, 2.0]])
    assert np.asarray(to_image(array))[..., 0].tolist() == [[0, 255], [0, 255]]


def test_trigger_is_transparent_outside_its_mask() -> None:
    mask = np.zeros((4, 4))
    mask[0, 0] = 0.1
    image = trigger_image(Evidence(trigger=np.ones((3, 4, 4)), mask=mask))
    assert image is not None
    assert image.getpixel((0, 0)) == (255, 255, 255, 255)
    assert image.getpixel((3, 3)) == (255, 255, 255, 0)
    assert trigger_image(Evidence()) is None


def test_change_map_is_relative_to_the_largest_change() -> None:
    before, after = np.zeros((1, 1, 2)), np.array([[[0.1, -0.2]]])
    assert change_map(before, after).ravel().tolist() == pytest.approx([0.5, 1.0])


def test_data_uri_is_shrunk_to_the_longest_side() -> None:
    image = to_image(np.zeros((200, 100)))
    assert data_uri(image, 50).startswith("data:image/png;base64,")
    assert len(data_uri(image, 10)) < len(data_uri(image, 200))
