"""Pictures of any size and kind -> inputs of a net: decoded within bounds, resized and cropped by an ``ImageSpec``."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec

MAX_PIXELS = 64_000_000  # decoded size of one picture
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MODES = {1: "L", 3: "RGB"}


def decode_all(pictures: Iterable[tuple[str, Path | bytes]], count: int, spec: ImageSpec) -> Tensor:
    """Decodes ``count`` pictures, given as (name for errors, file or its bytes): (N, C, H, W) float32 in [0, 1]."""
    x = torch.empty(count, *spec.shape)
    for index, (name, content) in enumerate(pictures):
        x[index] = decode(content, spec, name)
    return x


def decode(content: Path | bytes, spec: ImageSpec, name: str) -> Tensor:
    """One encoded picture as (C, H, W) float32 in [0, 1]; raises ``UnusableInput`` where it is broken or too large."""
    channels = spec.shape[0]
    if channels not in MODES:
        raise UnusableInput(f"picture files have 1 or 3 channels, the model takes {channels}; give the data as .npz")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
                picture = ImageOps.exif_transpose(_eight_bits(image)).convert(MODES[channels])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableInput(f"{name}: expected a picture of at most {MAX_PIXELS} pixels, came more ({error})") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise UnusableInput(f"{name}: is not a readable picture ({error})") from None
    array = np.asarray(_fit_image(picture, spec), dtype=np.float32) / 255
    return torch.from_numpy(array.reshape(*array.shape[:2], channels)).permute(2, 0, 1)


def size_of(path: Path) -> tuple[int, int]:
    """(H, W) of a picture file, which is not decoded; raises ``UnusableInput`` where it is none."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.height, image.width
    except (Image.DecompressionBombError, OSError, ValueError, SyntaxError, EOFError) as error:
        raise UnusableInput(f"{path}: is not a readable picture ({error})") from None




def fit(x: Tensor, spec: ImageSpec) -> Tensor:
    """Pictures in memory (N, c, h, w) in [0, 1], c 1 or that of ``spec`` -> (N, C, H, W), resized and cropped alike."""
    channels, height, width = spec.shape
    if x.shape[1] != channels:
        if {x.shape[1], channels} != {1, 3}:
            raise UnusableInput(f"expected pictures of {channels} channels, came {x.shape[1]}")
        # The weights of ITU-R 601, as pillow has them.
        grey = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        x = x.expand(-1, 3, -1, -1) if channels == 3 else (x * grey).sum(1, keepdim=True)
    if x.shape[2:] == (height, width):
        return x
    size = _resized((x.shape[2], x.shape[3]), spec)
    mode = {"lanczos": "bicubic", "nearest": "nearest-exact"}.get(spec.resample, spec.resample)
    smooth = spec.resample != "nearest"
    x = F.interpolate(x, size, mode=mode, align_corners=False if smooth else None, antialias=smooth).clamp(0, 1)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return F.pad(x, (-left, width - size[1] + left, -top, height - size[0] + top))  # negative padding cuts


def _resized(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int]:
    """(H, W) after resizing and before cropping, of a picture of ``size`` (H, W)."""
    if not spec.crop:
        return spec.shape[1:]
    if spec.resize is None:
        return size
    if isinstance(spec.resize, tuple):
        return spec.resize
    short, long = min(size), max(size)
    stretched = int(spec.resize * long / short)
    return (spec.resize, stretched) if size[0] <= size[1] else (stretched, spec.resize)


def _fit_image(picture: Image.Image, spec: ImageSpec) -> Image.Image:
    _, height, width = spec.shape
    new = _resized((picture.height, picture.width), spec)
    if new[0] * new[1] > MAX_PIXELS:
        raise UnusableInput(f"a picture of {picture.width} x {picture.height} pixels is too narrow to be resized")
    if (picture.height, picture.width) != new:
        picture = picture.resize((new[1], new[0]), RESAMPLING[spec.resample])
    if new != (height, width):
        left, top = (new[1] - width) // 2, (new[0] - height) // 2
        picture = picture.crop((left, top, left + width, top + height))  # black where the picture is smaller
    return picture


def _eight_bits(image: Image.Image) -> Image.Image:
    """Sixteen-bit greys scaled to eight bits, which pillow itself would clip."""
    if not image.mode.startswith("I"):
        return image
    grey = np.asarray(image).astype(np.float64) / 257
    return Image.fromarray(grey.clip(0, 255).round().astype(np.uint8))
