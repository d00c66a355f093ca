"""Arrays as PNG pictures."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from assay.core.finding import Evidence


def picture(array: np.ndarray, alpha: np.ndarray | None = None) -> Image.Image:
    """(H, W) or (C, H, W) float in [0, 1] as an 8-bit picture; ``alpha`` (H, W) makes parts of it transparent."""
    planes = np.atleast_3d(np.asarray(array, dtype=np.float32)) if np.ndim(array) < 3 else np.moveaxis(array, 0, -1)
    planes = planes[..., :3] if planes.shape[-1] >= 3 else np.repeat(planes[..., :1], 3, axis=-1)
    if alpha is not None:
        planes = np.concatenate([planes, alpha[..., None]], axis=-1)
    levels = np.nan_to_num(np.asarray(planes, dtype=np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    return Image.fromarray((levels.clip(0, 1) * 255).round().astype(np.uint8))


def trigger_picture(evidence: Evidence) -> Image.Image | None:
    """The trigger, seen only where its mask is; the mask alone where there is no trigger."""
    trigger, mask = evidence.trigger, evidence.mask
    if trigger is None:
        return None if mask is None else picture(mask)
    if mask is None or np.shape(mask) != np.shape(trigger)[-2:]:
        return picture(trigger)
    mask = np.nan_to_num(np.asarray(mask, dtype=np.float32)).clip(0, 1)
    # A faint blend over the whole picture is a trigger too: relative to its own maximum it can be seen.
    return picture(trigger, mask / max(float(mask.max()), 1e-6))


def difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(C, H, W): how much each value changed, as a share of the largest change."""
    change = np.abs(np.asarray(after, dtype=np.float32) - np.asarray(before, dtype=np.float32))
    change = np.nan_to_num(change)
    return change / max(float(change.max()), 1e-6)


def png(image: Image.Image) -> bytes:
    """The picture as a PNG file."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def data_uri(image: Image.Image, longest: int = 160) -> str:
    """The picture inside a ``data:`` address, shrunk to ``longest`` pixels so that the page stays light."""
    if max(image.size) > longest:
        image = image.copy()
        image.thumbnail((longest, longest), Image.Resampling.BICUBIC)
    return "data:image/png;base64," + base64.b64encode(png(image)).decode("ascii")
