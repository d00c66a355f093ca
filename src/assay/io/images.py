"""Arrays as 8-bit images and PNG files."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from assay.core.finding import Evidence


def to_image(array: np.ndarray, alpha: np.ndarray | None = None) -> Image.Image:
    """Return an array as an 8-bit color image for display.

    Args:
        array: (H, W) or (C, H, W) float in [0, 1]; values outside are clipped.
        alpha: Opacity (H, W) in [0, 1], or None for an opaque image.
    """
    planes = np.atleast_3d(np.asarray(array, dtype=np.float32)) if np.ndim(array) < 3 else np.moveaxis(array, 0, -1)
    planes = planes[..., :3] if planes.shape[-1] >= 3 else np.repeat(planes[..., :1], 3, axis=-1)
    if alpha is not None:
        planes = np.concatenate([planes, alpha[..., None]], axis=-1)
    return Image.fromarray(_to_levels(planes))


def trigger_image(evidence: Evidence) -> Image.Image | None:
    """Return the trigger, transparent outside its mask; the mask alone if there is no trigger."""
    trigger, mask = evidence.trigger, evidence.mask
    if trigger is None:
        return None if mask is None else to_image(mask)
    if mask is None or np.shape(mask) != np.shape(trigger)[-2:]:
        return to_image(trigger)
    mask = np.nan_to_num(np.asarray(mask, dtype=np.float32)).clip(0, 1)
    # The mask of a faint blend is small everywhere; relative to its maximum it is visible.
    return to_image(trigger, mask / max(float(mask.max()), 1e-6))


def change_map(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the change of each value (C, H, W), as a fraction of the largest change.

    Args:
        before: Image (C, H, W).
        after: Image (C, H, W).
    """
    change = np.abs(np.asarray(after, dtype=np.float32) - np.asarray(before, dtype=np.float32))
    change = np.nan_to_num(change)
    return change / max(float(change.max()), 1e-6)


def encode_png(image: Image.Image) -> bytes:
    """Return an image as a PNG file."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def encode_input(x: np.ndarray) -> bytes:
    """Return a model input (C, H, W) in [0, 1] as a PNG file with 8 bits a channel, C being 1 or 3."""
    levels = _to_levels(np.moveaxis(x, 0, -1))
    return encode_png(Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels))


def data_uri(image: Image.Image, longest: int = 160) -> str:
    """Return an image as a ``data:`` URI.

    Args:
        image: The image.
        longest: Largest side in pixels; larger images are shrunk to keep a page small.
    """
    if max(image.size) > longest:
        image = image.copy()
        image.thumbnail((longest, longest), Image.Resampling.BICUBIC)
    return "data:image/png;base64," + base64.b64encode(encode_png(image)).decode("ascii")


def _to_levels(values: np.ndarray) -> np.ndarray:
    """Return floats in [0, 1] as uint8 from 0 to 255."""
    finite = np.nan_to_num(np.asarray(values, dtype=np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    return (finite.clip(0, 1) * 255).round().astype(np.uint8)
