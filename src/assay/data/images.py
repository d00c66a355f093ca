"""Conversion of images of any size and kind into model inputs: bounded decoding, resizing, cropping, augmentation."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image
from torch import Tensor

from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec
from assay.data.foreign import one_line_errors
from assay.io.files import check_plain_file

# Largest decoded size of one image, in pixels.
MAX_PIXELS = 64_000_000

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
# Closest modes of torch for images in memory.
TENSOR_MODES = {"lanczos": "bicubic", "nearest": "nearest-exact", "box": "area", "hamming": "bilinear"}
MODES = {1: "L", 3: "RGB"}

# Rotation of an image by the orientation in its EXIF data.
ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Formats with 16 bits a pixel where pillow gives 32 bits.
SIXTEEN_BITS = ("PNG", "PPM")

ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
ALPHA = "images have an alpha channel: transparency is ignored"
ANIMATED = "images have several frames: the first one is used"


def decode_images(
    images: Iterable[tuple[str, Path | bytes]], count: int, spec: ImageSpec, remarks: Counter[str] | None = None
) -> Tensor:
    """Decode images into inputs (N, C, H, W) float32 in [0, 1].

    Args:
        images: Names for error messages, with a file or its bytes.
        count: Number N of the images.
        spec: The model's input specification.
        remarks: Counter of unusual images; increased.
    """
    x = torch.empty(count, *spec.shape)
    for index, (name, content) in enumerate(images):
        x[index] = decode_image(content, spec, name, remarks)
    return x


def decode_image(
    content: Path | bytes | Image.Image, spec: ImageSpec, name: str, remarks: Counter[str] | None = None
) -> Tensor:
    """Decode one image into an input (C, H, W) float32 in [0, 1].

    The orientation in the EXIF data rotates the image. All other metadata are ignored.

    Args:
        content: A file, its bytes, or an open image.
        spec: The model's input specification.
        name: Name for error messages.
        remarks: Counter of unusual images; increased.

    Raises:
        UnusableInput: The image is broken, larger than ``MAX_PIXELS``, or not in a known range.
    """
    channels = spec.shape[0]
    if channels not in MODES:
        raise UnusableInput(
            f"expected a model of 1 or 3 channels for image files, got {channels}. Fix: give the data as .npz."
        )
    remarks = Counter() if remarks is None else remarks
    if isinstance(content, Image.Image):
        with one_line_errors(name, "a readable image"):
            image = _upright(content, channels, name, remarks)
    else:
        with _opened(content, name) as file:
            image = _upright(file, channels, name, remarks)
    array = np.asarray(_resize_and_crop(image, spec), dtype=np.float32) / 255
    return torch.from_numpy(array.reshape(*array.shape[:2], channels)).permute(2, 0, 1)


@contextmanager
def _opened(content: Path | bytes, name: str) -> Iterator[Image.Image]:
    """Open an image of at most ``MAX_PIXELS``, with one line for any error inside."""
    where = content if isinstance(content, Path) and str(content) == name else name
    with one_line_errors(where, "a readable image"):
        if isinstance(content, Path) and not content.is_file():
            check_plain_file(content)  # a pipe would wait without end
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                stream = io.BytesIO(content) if isinstance(content, bytes) else content
                with Image.open(stream, formats=FORMATS) as file:
                    if file.width * file.height > MAX_PIXELS:
                        raise Image.DecompressionBombError(f"{file.width} x {file.height} pixels")
                    yield file
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise UnusableInput(
                f"{name}: expected an image of at most {MAX_PIXELS} pixels, got more ({error})"
            ) from None


def _upright(file: Image.Image, channels: int, name: str, remarks: Counter[str]) -> Image.Image:
    """Return an image with 8 bits a channel, rotated by its orientation."""
    if getattr(file, "n_frames", 1) > 1:
        remarks[ANIMATED] += 1
    if file.mode in ALPHA_MODES or "transparency" in file.info:
        remarks[ALPHA] += 1
    orientation = _orientation(file)
    image = _to_eight_bits(file, name).convert(MODES[channels])
    return image.transpose(ORIENTATIONS[orientation]) if orientation in ORIENTATIONS else image


def _orientation(file: Image.Image) -> object:
    """Return the orientation in the EXIF data; None without one, or if the data are damaged."""
    try:
        return file.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return None


def image_size(path: Path) -> tuple[int, int]:
    """Return the size (H, W) of an image file without decoding it; raise UnusableInput for other files."""
    with _opened(path, str(path)) as image:
        return image.height, image.width


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
    if (first := _first_crop((x.shape[2], x.shape[3]), spec)) is not None:
        x = _crop_tensor(x, first)
    size = _size_before_crop((x.shape[2], x.shape[3]), spec)
    mode = TENSOR_MODES.get(spec.resample, spec.resample)
    smooth = spec.resample not in ("nearest", "box")
    x = F.interpolate(x, size, mode=mode, align_corners=False if smooth else None, antialias=smooth).clamp(0, 1)
    return _crop_tensor(x, (height, width))


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


def _first_crop(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int] | None:
    """Return (H, W) of the crop before resizing, for an image of ``size`` (H, W); None without such a crop."""
    if spec.first_crop is None:
        return None
    height, width = (max(1, int(fraction * min(size))) for fraction in spec.first_crop)
    if height * width > MAX_PIXELS:
        raise UnusableInput(f"an image of {size[1]} x {size[0]} pixels is too large to crop to {width} x {height}")
    return height, width


def _crop_tensor(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the center (N, C, H, W) of images; black outside of smaller ones."""
    top, left = (x.shape[2] - size[0]) // 2, (x.shape[3] - size[1]) // 2
    right, bottom = size[1] - x.shape[3] + left, size[0] - x.shape[2] + top
    return F.pad(x, (-left, right, -top, bottom))  # negative padding crops


def _crop_image(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the center (H, W) of an image; black outside of a smaller one."""
    left, top = (image.width - size[1]) // 2, (image.height - size[0]) // 2
    return image.crop((left, top, left + size[1], top + size[0]))


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
    if (first := _first_crop((image.height, image.width), spec)) is not None:
        image = _crop_image(image, first)
    new = _size_before_crop((image.height, image.width), spec)
    if new[0] * new[1] > MAX_PIXELS:
        raise UnusableInput(f"an image of {image.width} x {image.height} pixels is too narrow to resize")
    if (image.height, image.width) != new:
        image = image.resize((new[1], new[0]), RESAMPLING[spec.resample])
    return image if new == (height, width) else _crop_image(image, (height, width))


def _to_eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Scale 16-bit grays and floats in [0, 1] to 8 bits; pillow itself would clip them.

    Args:
        image: The image.
        name: Name for error messages.

    Raises:
        UnusableInput: The range of the pixels is unknown.
    """
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    gray = np.asarray(image).astype(np.float64)
    low, high = (float(gray.min()), float(gray.max())) if gray.size else (0.0, 0.0)
    if image.mode == "F":
        if not (low >= 0 and high <= 1):  # also true for NaN
            raise UnusableInput(
                f"{name}: expected float pixels in [0, 1], got {low:g} to {high:g}. Fix: scale them, or save 8 bits."
            )
        return Image.fromarray((gray * 255).round().astype(np.uint8))
    if image.mode == "I" and image.format not in SIXTEEN_BITS:
        raise UnusableInput(
            f"{name}: expected pixels of 8 or 16 bits, got 32 bits from {low:g} to {high:g}. Fix: save 8 bits."
        )
    return Image.fromarray((gray / 257).clip(0, 255).round().astype(np.uint8))
