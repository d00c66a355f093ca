"""``preprocessor_config.json`` as an ``ImageSpec`` and a normalization.

The image processor of transformers supplies all omitted settings. A processor unknown to transformers is
read by its settings alone; then a mean or standard deviation is never guessed. The result is compared with the output
of the processor, so that no difference stays unnoticed.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec
from assay.data.images import decode_image
from assay.formats.huggingface.image_processor import TYPE_KEYS, complete_settings, load_image_processor, process_image
from assay.formats.metadata import Resample
from assay.formats.normalization import Normalization
from assay.formats.shape import Shape, side_is_sane

PILLOW_RESAMPLES: dict[str, Resample] = {
    "0": "nearest",
    "1": "lanczos",
    "2": "bilinear",
    "3": "bicubic",
    "4": "box",
    "5": "hamming",
}
DEFAULT_SIDE = 224  # pixels
SIZES = ("size", "crop_size", "pad_size")
CONVNEXT_CROP_FRACTION = 224 / 256  # default of transformers
CONVNEXT_SQUEEZED_FROM = 384  # pixels; ConvNeXt crops smaller images and squeezes others into the square
MAX_FIRST_CROP = 4.0  # of the shorter side; larger crops are black
LEVIT_SCALE = 256 / 224  # fixed in LevitImageProcessor, no setting
TEST_IMAGES = ((261, 300), (150, 97))  # (H, W) of the images for the comparison with transformers
MAX_TEST_PIXELS = 5_000_000  # of an input: a hostile file could ask for gigabytes
MAX_DIFFERENCE = 1.5 / 255  # of any pixel in [0, 1]; both round to 8 bits
UNCHECKED = (
    "transformers does not have its image processor {!r} here: the settings are read as resizing, cropping and "
    "normalization, and nothing compares the result"
)
FAILS = (
    "its image processor ({}) fails in transformers with these settings: they are read as resizing, cropping and "
    "normalization, and nothing compares the result"
)
OTHER_SHAPES = (
    "its image processor makes inputs of a shape that depends on the image; here every image is resized to {} x {}"
)


@dataclass(frozen=True)
class Preprocessing:
    """Conversion of images to the inputs of a transformers model."""

    inputs: ImageSpec
    normalization: Normalization  # for pixels in [0, 1]
    flip: bool = False  # RGB -> BGR
    guessed: bool = False  # no file states the size
    notes: tuple[str, ...] = ()  # differences from the image processor that assay cannot rule out


def read_preprocessing(
    processor: Mapping[str, Any] | None,
    config: Mapping[str, Any],
    normalization: Normalization | None,
    where: str,
    *,
    shape: Shape | None = None,
) -> Preprocessing:
    """Return the preprocessing described by an image processor's settings.

    Args:
        processor: Content of ``preprocessor_config.json``. Without it, the size is the config's ``image_size``.
        config: The model's config.
        normalization: Replaces the normalization of the settings. Required without ``processor``.
        where: Name of the model in error messages.
        shape: (C, H, W), replaces the size of the settings.

    Raises:
        UnusableInput: The settings are missing, malformed or not reproducible.
    """
    channels = shape[0] if shape else config.get("num_channels", 3)
    if not side_is_sane(channels):
        raise UnusableInput(f"{where}: expected a small number of channels, got {channels!r}")
    if processor is None and normalization is None:
        raise UnusableInput(
            f"{where}: expected a preprocessor_config.json, found none. "
            "Fix: give mean and std (0 and 1 if the model takes [0, 1])."
        )
    stated = {key: value for key, value in (processor or {}).items() if value is not None}
    if normalization is not None:
        stated |= {"do_normalize": False, "include_top": False}
    for key in SIZES:
        _refuse_large_sides(stated.get(key), where)
    reference = load_image_processor(stated, config.get("model_type")) if processor is not None else None
    settings = stated if reference is None else complete_settings(reference)
    unchecked: tuple[str, ...] = ()
    if processor is not None and reference is None and any(key in stated for key in TYPE_KEYS):
        unchecked = (UNCHECKED.format(next(stated[key] for key in TYPE_KEYS if key in stated)),)
    found = Preprocessing(
        inputs=ImageSpec(shape) if shape else _inputs(settings, config.get("image_size"), channels, where),
        normalization=_normalization(settings, channels, where),
        flip=bool(settings.get("do_flip_channel_order")),
        guessed=not shape and config.get("image_size") is None and not any(key in settings for key in SIZES),
        notes=unchecked,
    )
    if reference is not None and shape is None and channels == 3:
        found = replace(found, notes=_compare_with_transformers(found, reference, where))
    return found if normalization is None else replace(found, normalization=normalization)


def _inputs(settings: Mapping[str, Any], image_size: object, channels: int, where: str) -> ImageSpec:
    """Return the size, resizing and cropping of images."""
    kind = str(settings.get("image_processor_type") or "").removesuffix("Fast")
    resample = _resample(settings.get("resample", 2), where)
    fallback = _pair(image_size, where) or (DEFAULT_SIDE, DEFAULT_SIDE)
    edge = _shortest_edge(settings.get("size"), where)
    whole = _pair(settings.get("size"), where) if edge is None else None
    cropped = _pair(settings.get("crop_size"), where)
    crop = bool(settings.get("do_center_crop", cropped is not None))
    resize: int | tuple[int, int] | None = edge or whole
    if kind == "ConvNextImageProcessor" and edge is not None:
        crop, cropped = edge < CONVNEXT_SQUEEZED_FROM, (edge, edge)
        resize = int(edge / _positive(settings.get("crop_pct") or CONVNEXT_CROP_FRACTION, where))
    elif kind == "PerceiverImageProcessor" and crop and whole is not None and cropped is not None:
        # transformers crops first, to a part of the shorter side, and resizes the rest to the size.
        first = (whole[0] / cropped[0], whole[1] / cropped[1])
        if max(first) > MAX_FIRST_CROP:
            raise UnusableInput(f"{where}: expected a crop_size near the size {whole}, got {cropped}")
        return ImageSpec((channels, *whole), resample=resample, first_crop=first)
    elif kind == "LevitImageProcessor" and edge is not None:
        resize = int(LEVIT_SCALE * edge)
    elif kind == "PoolFormerImageProcessor" and settings.get("crop_pct") is not None:
        resize = _enlarged(edge or whole or fallback, _positive(settings["crop_pct"], where))
    _refuse_large_sides(resize, where)
    if not crop:
        # transformers keeps the aspect ratio for a shortest edge without a crop. Assay needs one shape: a square.
        height, width = (edge, edge) if edge is not None else whole or fallback
        return ImageSpec((channels, height, width), resample=resample)
    height, width = cropped or fallback
    resize = resize if settings.get("do_resize", True) else None
    return ImageSpec((channels, height, width), resize=resize, crop=True, resample=resample)


def _resample(value: object, where: str) -> Resample:
    found = PILLOW_RESAMPLES.get(str(value))
    if found is None:
        raise UnusableInput(f"{where}: expected resample {', '.join(PILLOW_RESAMPLES)} of pillow, got {value!r}")
    return found


def _enlarged(size: int | tuple[int, int], fraction: float) -> int | tuple[int, int]:
    """Return a size before a crop to ``fraction`` of it, as PoolFormer computes it."""
    if isinstance(size, int):
        return int(size / fraction)
    height, width = (int(side / fraction) for side in size)
    return height if height == width else (height, width)


def _normalization(settings: Mapping[str, Any], channels: int, where: str) -> Normalization:
    """Return the normalization of pixels in [0, 1]: rescaling, mean and standard deviation in one step."""
    rescale = settings.get("do_rescale", True)
    scale = 255.0 * _positive(settings.get("rescale_factor", 1 / 255), where) if rescale else 255.0
    offset = 1.0 if rescale and settings.get("rescale_offset") else 0.0
    normalize, twice = settings.get("do_normalize", True), bool(settings.get("include_top"))
    given = Normalization.identity(channels)
    if normalize or twice:
        given = _stated_normalization(settings, where)
    mean, std = given.mean, given.std
    if twice:  # EfficientNet classifiers divide by the standard deviation once more
        mean, std = (mean, tuple(s * s for s in std)) if normalize else ((0.0,) * len(std), std)
    # ((x * scale - offset) - mean) / std, for x in [0, 1]
    return Normalization(tuple((m + offset) / scale for m in mean), tuple(s / scale for s in std))


def _stated_normalization(settings: Mapping[str, Any], where: str) -> Normalization:
    mean, std = settings.get("image_mean"), settings.get("image_std")
    number = (int, float)
    if mean is None or std is None:
        raise UnusableInput(
            f"{where}: expected image_mean and image_std in preprocessor_config.json, got none. Fix: give mean and std."
        )
    found = Normalization.of([mean] if isinstance(mean, number) else mean, [std] if isinstance(std, number) else std)
    assert found is not None  # both are given
    return found


def _compare_with_transformers(found: Preprocessing, processor: Any, where: str) -> tuple[str, ...]:
    """Compare the inputs of some images with those of transformers.

    Args:
        found: The preprocessing.
        processor: The processor of transformers with the same settings.
        where: Name of the model in error messages.

    Returns:
        A note if transformers makes inputs of other shapes, or none.

    Raises:
        UnusableInput: transformers makes another input of an image, or the input has over ``MAX_TEST_PIXELS``.
    """
    _, height, width = found.inputs.shape
    resize = found.inputs.resize or 0
    resized = resize[0] * resize[1] if isinstance(resize, tuple) else resize**2
    if max(height * width, resized) > MAX_TEST_PIXELS:
        raise UnusableInput(
            f"{where}: expected inputs of at most {MAX_TEST_PIXELS:,} pixels, got {max(height * width, resized):,}: "
            "too large to compare the preprocessing with that of transformers. Fix: give shape, mean and std."
        )
    images = [_test_image(size) for size in TEST_IMAGES]
    expected = [process_image(processor, image) for image in images]
    name = type(processor).__name__.removesuffix("Pil")
    if all(output is None for output in expected):
        return (FAILS.format(name),)
    if all(output is not None and output.shape == found.inputs.shape for output in expected):
        if all(_same(found, image, output) for image, output in zip(images, expected, strict=True)):
            return ()
    elif all(output is not None and len(output) == 3 for output in expected):
        # The shape depends on the image. assay needs one shape: the one that an image of this size has.
        image = _test_image((height, width))
        if _same(found, image, process_image(processor, image)):
            return (OTHER_SHAPES.format(height, width),)
    raise UnusableInput(
        f"{where}: expected preprocessing by resizing, cropping and normalization, got another kind "
        f"({name}). Fix: give shape, mean and std."
    )


def _same(found: Preprocessing, image: np.ndarray, expected: np.ndarray | None) -> bool:
    """Return whether assay makes the expected input of an image, up to ``MAX_DIFFERENCE``.

    Args:
        found: The preprocessing.
        image: Image (H, W, 3) of 8 bits per channel.
        expected: Output (C, H, W) of transformers; None: it failed.
    """
    from PIL import Image

    if expected is None or expected.shape != found.inputs.shape:
        return False
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PPM")
    mean, std = (np.array(values).reshape(-1, 1, 1) for values in (found.normalization.mean, found.normalization.std))
    pixels = decode_image(file.getvalue(), found.inputs, "the test image").numpy()
    own = (pixels - mean) / std
    return float((np.abs((own[::-1] if found.flip else own) - expected) * std).max()) <= MAX_DIFFERENCE


@lru_cache(maxsize=4)
def _test_image(size: tuple[int, int]) -> np.ndarray:
    """Return an image (H, W, 3) of 8 bits per channel, with fine and coarse parts in each channel."""
    rows, columns = (np.linspace(0, 1, side, dtype=np.float32) for side in size)
    waves = [np.sin(9 * rows[:, None] + k * columns) * np.cos(k * rows[:, None] - 5 * columns) for k in (3, 7, 11)]
    noise = np.random.default_rng(0).uniform(-1, 1, (*size, 3))
    return np.clip(127.5 + 90 * np.stack(waves, axis=2) + 35 * noise, 0, 255).astype(np.uint8)


def _shortest_edge(size: object, where: str) -> int | None:
    """Return the shortest edge of a size, None for a size of height and width."""
    edge = size.get("shortest_edge") if isinstance(size, dict) else size if isinstance(size, int) else None
    if edge is not None and not side_is_sane(edge):
        raise UnusableInput(f"{where}: expected a size of 1 to 4096 pixels, got {size!r}")
    return edge


def _pair(value: object, where: str) -> tuple[int, int] | None:
    """Return (H, W) of a number, [H, W] or {"height": H, "width": W}; None for None."""
    if value is None:
        return None
    sides: list[Any]
    if isinstance(value, dict):
        sides = [value.get("height"), value.get("width")]
        if sides == [None, None]:
            sides = [value.get("shortest_edge")] * 2
    else:
        sides = list(value) if isinstance(value, (list, tuple)) else [value, value]
    if len(sides) != 2 or not all(map(side_is_sane, sides)):
        raise UnusableInput(f"{where}: expected a height and width of 1 to 4096 pixels, got {value!r}")
    return sides[0], sides[1]


def _refuse_large_sides(value: object, where: str) -> None:
    """Raise UnusableInput if a size holds a number outside 1 to 4096 pixels."""
    sides = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
    if not all(side is None or side_is_sane(side) for side in sides):
        raise UnusableInput(f"{where}: expected sizes of 1 to 4096 pixels, got {value!r}")


def _positive(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1e-6 < value < 1e6:
        raise UnusableInput(f"{where}: expected a positive factor in preprocessor_config.json, got {value!r}")
    return float(value)
