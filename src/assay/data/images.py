"""Conversion of images of any size and kind into model inputs: bounded decoding, resizing, cropping, augmentation."""

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

# Largest decoded size of one image, in pixels.
MAX_PIXELS = 64_000_000

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MODES = {1: "L", 3: "RGB"}


def decode_images(images: Iterable[tuple[str, Path | bytes]], count: int, spec: ImageSpec) -> Tensor:
    """Decode images into inputs (N, C, H, W) float32 in [0, 1].

    Args:
        images: Names for error messages, with a file or its bytes.
        count: Number N of the images.
        spec: The model's input specification.
    """
    x = torch.empty(count, *spec.shape)
    for index, (name, content) in enumerate(images):
        x[index] = decode_image(content, spec, name)
    return x


def decode_image(content: Path | bytes, spec: ImageSpec, name: str) -> Tensor:
    """Decode one image into an input (C, H, W) float32 in [0, 1].

    Args:
        content: A file or its bytes.
        spec: The model's input specification.
        name: Name for error messages.

    Raises:
        UnusableInput: The image is broken or larger than ``MAX_PIXELS``.
    """
    channels = spec.shape[0]
    if channels not in MODES:
        raise UnusableInput(
            f"expected a model of 1 or 3 channels for image files, got {channels}. Fix: give the data as .npz."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=FORMATS) as file:
                if file.width * file.height > MAX_PIXELS:
                    raise Image.DecompressionBombError(f"{file.width} x {file.height} pixels")
                image = ImageOps.exif_transpose(_to_eight_bits(file)).convert(MODES[channels])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableInput(f"{name}: expected an image of at most {MAX_PIXELS} pixels, got more ({error})") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise UnusableInput(f"{name}: is not a readable image ({error})") from None
    array = np.asarray(_resize_and_crop(image, spec), dtype=np.float32) / 255
    return torch.from_numpy(array.reshape(*array.shape[:2], channels)).permute(2, 0, 1)


def image_size(path: Path) -> tuple[int, int]:
    """Return the size (H, W) of an image file without decoding it; raise UnusableInput for other files."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.height, image.width
    except (Image.DecompressionBombError, OSError, ValueError, SyntaxError, EOFError) as error:
        raise UnusableInput(f"{path}: is not a readable image ({error})") from None


def resize_images(x: Tensor, spec: ImageSpec) -> Tensor:
    """Resize and crop images in memory, as ``decode_image`` does with files.

    Args:
        x: Images (N, c, h, w) in [0, 1], c being 1 or the number of the model's channels.
        spec: The model's input specification.

    Returns:
        Inputs (N, C, H, W) float32 in [0, 1].
    """
    channels, height, width = spec.shape
    if x.shape[1] != channels:
        if {x.shape[1], channels} != {1, 3}:
            raise UnusableInput(f"expected images of {channels} channels, got {x.shape[1]}")
        luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # ITU-R 601, as in pillow
        x = x.expand(-1, 3, -1, -1) if channels == 3 else (x * luma).sum(1, keepdim=True)
    if x.shape[2:] == (height, width):
        return x
    size = _size_before_crop((x.shape[2], x.shape[3]), spec)
    mode = {"lanczos": "bicubic", "nearest": "nearest-exact"}.get(spec.resample, spec.resample)
    smooth = spec.resample != "nearest"
    x = F.interpolate(x, size, mode=mode, align_corners=False if smooth else None, antialias=smooth).clamp(0, 1)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return F.pad(x, (-left, width - size[1] + left, -top, height - size[0] + top))  # negative padding crops


def augment_images(x: Tensor, *, mirror: bool, generator: torch.Generator) -> Tensor:
    """Shift each image by up to an eighth of its width, with a reflected edge, and mirror half of them.

    Args:
        x: Images (N, C, H, W).
        mirror: Mirror each image with probability 1/2.
        generator: Source of randomness.
    """
    n, _, height, width = x.shape
    pad = max(1, width // 8)
    padded = F.pad(x, (pad, pad, pad, pad), mode="reflect")
    row, column = torch.randint(0, 2 * pad + 1, (2, n), generator=generator)
    rows = (row[:, None] + torch.arange(height))[:, None, :, None]
    columns = (column[:, None] + torch.arange(width))[:, None, None, :]
    if mirror:
        flip = torch.rand(n, generator=generator) < 0.5
        columns = torch.where(flip[:, None, None, None], columns.flip(3), columns)
    samples = torch.arange(n)[:, None, None, None]
    channels = torch.arange(x.shape[1])[None, :, None, None]
    return padded[samples, channels, rows, columns]


def _size_before_crop(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int]:
    """Return (H, W) after resizing and before cropping, for an image of ``size`` (H, W)."""
    if not spec.crop:
        return spec.shape[1:]
    if spec.resize is None:
        return size
    if isinstance(spec.resize, tuple):
        return spec.resize
    short, long = min(size), max(size)
    stretched = int(spec.resize * long / short)
    return (spec.resize, stretched) if size[0] <= size[1] else (stretched, spec.resize)


def _resize_and_crop(image: Image.Image, spec: ImageSpec) -> Image.Image:
    _, height, width = spec.shape
    new = _size_before_crop((image.height, image.width), spec)
    if new[0] * new[1] > MAX_PIXELS:
        raise UnusableInput(f"an image of {image.width} x {image.height} pixels is too narrow to resize")
    if (image.height, image.width) != new:
        image = image.resize((new[1], new[0]), RESAMPLING[spec.resample])
    if new != (height, width):
        left, top = (new[1] - width) // 2, (new[0] - height) // 2
        image = image.crop((left, top, left + width, top + height))  # black outside of a smaller image
    return image


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grays to 8 bits; pillow itself would clip them."""
    if not image.mode.startswith("I"):
        return image
    gray = np.asarray(image).astype(np.float64) / 257
    return Image.fromarray(gray.clip(0, 255).round().astype(np.uint8))
