"""``preprocessor_config.json`` as an ``ImageSpec`` and a normalization.

transformers' own image processors need torchvision in part, so their settings are read here. Where a setting is
missing, what most processors do by default stands in; a mean or standard deviation is never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec
from assay.formats.metadata import Resample
from assay.formats.normalization import Normalization
from assay.formats.shape import Shape, side_is_sane

PILLOW_RESAMPLES: dict[str, Resample] = {"0": "nearest", "1": "lanczos", "2": "bilinear", "3": "bicubic"}
DEFAULT_SIDE = 224
SIZES = ("size", "crop_size")


@dataclass(frozen=True)
class Preprocessing:
    """How pictures become what a transformers model takes."""

    inputs: ImageSpec
    normalization: Normalization  # for pixels in [0, 1]
    flip: bool = False  # RGB -> BGR
    guessed: bool = False  # the size is said nowhere


def read_preprocessing(
    processor: Mapping[str, Any] | None,
    config: Mapping[str, Any],
    normalization: Normalization | None,
    where: str,
    *,
    shape: Shape | None = None,
) -> Preprocessing:
    """Reads a processor's settings; ``normalization`` and ``shape`` (C, H, W), where given, win over them.

    Without a processor's file the size is the config's ``image_size``; mean and standard deviation must be given.
    """
    channels = shape[0] if shape else config.get("num_channels", 3)
    if not side_is_sane(channels):
        raise UnusableInput(f"{where}: expected a small number of channels, came {channels!r}")
    if processor is None and normalization is None:
        raise UnusableInput(
            f"{where}: has no preprocessor_config.json; give --mean and --std (0 and 1 where the model takes [0, 1])"
        )
    settings: Mapping[str, Any] = processor or {}
    kind = str(settings.get("image_processor_type") or settings.get("feature_extractor_type") or "")
    inputs = ImageSpec(shape) if shape else _inputs(settings, kind, config.get("image_size"), channels, where)
    return Preprocessing(
        inputs=inputs,
        normalization=normalization or _normalization(settings, kind, channels, where),
        flip=bool(settings.get("do_flip_channel_order", kind.startswith("MobileViT"))),
        guessed=not shape and all(said is None for said in (config.get("image_size"), *map(settings.get, SIZES))),
    )


def _inputs(settings: Mapping[str, Any], kind: str, image_size: object, channels: int, where: str) -> ImageSpec:
    resample = PILLOW_RESAMPLES.get(str(settings.get("resample", 2)), "bilinear")
    fallback = _pair(image_size, where) or (DEFAULT_SIDE, DEFAULT_SIDE)
    size = settings.get("size", list(fallback) if settings else None)
    edge = size.get("shortest_edge") if isinstance(size, dict) else size if isinstance(size, int) else None
    if edge is not None and not side_is_sane(edge):
        raise UnusableInput(f"{where}: expected a size of 1 to 4096 pixels, came {size!r}")
    whole = None if edge is not None else _pair(size, where)
    cropped = _pair(settings.get("crop_size"), where)
    crop = bool(settings.get("do_center_crop", cropped is not None))
    if kind.startswith("ConvNext") and edge is not None:
        # Below 384 pixels: resized to edge / crop_pct and cropped; from 384 on squeezed into the square.
        wide = int(edge / _positive(settings.get("crop_pct") or 224 / 256, where))
        if edge >= 384:
            return ImageSpec((channels, edge, edge), resample=resample)
        return ImageSpec((channels, edge, edge), resize=wide, crop=True, resample=resample)
    if crop:
        height, width = cropped or fallback
        resize = (edge if edge is not None else whole) if settings.get("do_resize", True) else None
        return ImageSpec((channels, height, width), resize=resize, crop=True, resample=resample)
    if edge is not None:
        # Without a crop the shortest edge alone fixes no shape; old ViT processors mean a square by a bare number.
        return ImageSpec((channels, edge, edge), resize=None, resample=resample)
    height, width = whole or fallback
    return ImageSpec((channels, height, width), resample=resample)


def _normalization(settings: Mapping[str, Any], kind: str, channels: int, where: str) -> Normalization:
    scale = (
        255.0 * _positive(settings.get("rescale_factor", 1 / 255), where) if settings.get("do_rescale", True) else 255.0
    )
    offset = 1.0 if settings.get("rescale_offset") and settings.get("do_rescale", True) else 0.0
    mean, std = settings.get("image_mean"), settings.get("image_std")
    normalize = settings.get("do_normalize", mean is not None)
    if not normalize:
        given = Normalization.identity(channels)
    elif mean is None or std is None:
        raise UnusableInput(
            f"{where}: preprocessor_config.json names no image_mean or image_std; give --mean and --std"
        )
    else:
        one = (int, float)
        checked = Normalization.of([mean] if isinstance(mean, one) else mean, [std] if isinstance(std, one) else std)
        given = checked or Normalization.identity(channels)
    deviations = given.std
    if normalize and kind.startswith("EfficientNet") and settings.get("include_top", True):
        deviations = tuple(s * s for s in deviations)  # its classifiers divide by the deviation a second time
    # ((x * scale - offset) - mean) / std, for x in [0, 1]
    return Normalization(tuple((m + offset) / scale for m in given.mean), tuple(s / scale for s in deviations))


def _pair(value: object, where: str) -> tuple[int, int] | None:
    """(H, W) of what stands in a config: a number, [H, W] or {"height": H, "width": W}; None where there is nothing."""
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
        raise UnusableInput(f"{where}: expected a height and width of 1 to 4096 pixels, came {value!r}")
    return sides[0], sides[1]


def _positive(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1e-6 < value < 1e6:
        raise UnusableInput(f"{where}: expected a positive factor in preprocessor_config.json, came {value!r}")
    return float(value)
