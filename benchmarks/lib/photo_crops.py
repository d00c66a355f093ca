"""Random crops of twenty photographs of ImageNet."""

from __future__ import annotations

import numpy as np
from PIL import Image

from lib.paths import SHARED


def photo_crops(size: int, short_side: int, count: int) -> list[tuple[str, np.ndarray]]:
    """Return random crops of each resized photograph, the same in every run.

    Args:
        size: Height and width of a crop in pixels.
        short_side: Short side of a resized photograph in pixels.
        count: Crops of each photograph.

    Returns:
        Name of the photograph's file without its suffix, and the crop (H, W, 3) uint8.
    """
    random, crops = np.random.default_rng(0), []
    for path in sorted((SHARED / "data/imagenet20").glob("*.jpg")):
        photo = Image.open(path).convert("RGB")
        ratio = short_side / min(photo.size)
        photo = photo.resize((round(photo.width * ratio), round(photo.height * ratio)), Image.Resampling.BICUBIC)
        values = np.asarray(photo)
        for _ in range(count):
            top, left = (random.integers(0, side - size + 1) for side in values.shape[:2])
            crops.append((path.stem, values[top : top + size, left : left + size]))
    return crops
