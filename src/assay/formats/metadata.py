"""Metadata of assay in model files: safetensors ``__metadata__``, ONNX ``metadata_props``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from assay.core.errors import UnusableInput
from assay.core.model import ARCH_KEY, PLANTED_KEY, ImageSpec, InputSpec, TextSpec
from assay.formats.normalization import Normalization
from assay.formats.shape import as_length, side_is_sane
from assay.nn.normalized import MEAN_KEY, STD_KEY

SHAPE_KEY = "assay.shape"
CLASS_NAMES_KEY = "assay.class_names"
TEXT_KEY = "assay.text"  # conversion of texts, a JSON object; the tokenizer has its own key
TOKENIZER_KEY = "assay.tokenizer"
TEXT_FIELDS = ("start", "end", "pad", "vocabulary")
IMAGES_KEY = "assay.pictures"  # resizing, cropping and resampling of images, a JSON object

Resample = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
RESAMPLES: dict[Any, Resample] = {name: name for name in get_args(Resample)}


@dataclass(frozen=True)
class ModelMetadata:
    """Metadata of one model file. None: not in the file."""

    arch: str | None = None
    planted: str | None = None
    inputs: InputSpec | None = None
    normalization: Normalization | None = None
    class_names: tuple[str, ...] | None = None

    def as_text(self) -> dict[str, str]:
        """Return the keys and values for the file."""
        text = {ARCH_KEY: self.arch, PLANTED_KEY: self.planted}
        if isinstance(self.inputs, TextSpec):
            numbers = {name: getattr(self.inputs, name) for name in TEXT_FIELDS}
            text |= {SHAPE_KEY: json.dumps(self.inputs.shape), TEXT_KEY: json.dumps(numbers)}
            text[TOKENIZER_KEY] = self.inputs.tokenizer
        elif isinstance(self.inputs, ImageSpec):
            images = {key: getattr(self.inputs, key) for key in ("resize", "crop", "resample")}
            if self.inputs.first_crop is not None:
                images["first_crop"] = self.inputs.first_crop
            text |= {SHAPE_KEY: json.dumps(self.inputs.shape), IMAGES_KEY: json.dumps(images)}
        if self.normalization is not None:
            text |= {MEAN_KEY: json.dumps(self.normalization.mean), STD_KEY: json.dumps(self.normalization.std)}
        if self.class_names is not None:
            text[CLASS_NAMES_KEY] = json.dumps(self.class_names)
        return {key: value for key, value in text.items() if value is not None}

    @classmethod
    def read(cls, text: Mapping[str, str], where: str) -> ModelMetadata:
        """Parse the metadata of a file.

        Args:
            text: Keys and values in the file.
            where: Name of the file in error messages.

        Raises:
            UnusableInput: A value is malformed.
        """
        mean, std = (_read_list(text, key, where) for key in (MEAN_KEY, STD_KEY))
        names = _read_list(text, CLASS_NAMES_KEY, where)
        return cls(
            arch=text.get(ARCH_KEY),
            planted=text.get(PLANTED_KEY),
            inputs=_read_inputs(text, where),
            normalization=Normalization.of(mean, std),
            class_names=None if names is None else tuple(map(str, names)),
        )


def _read_inputs(text: Mapping[str, str], where: str) -> InputSpec | None:
    shape = _read_list(text, SHAPE_KEY, where)
    if shape is None:
        return None
    if TEXT_KEY in text:
        return _read_text_spec(text, shape, where)
    if len(shape) != 3 or not all(map(side_is_sane, shape)):
        raise UnusableInput(f"{where}: expected [channels, height, width] as {SHAPE_KEY}, got {shape}")
    images = _read_json(text, IMAGES_KEY, where) or {}
    resize = images.get("resize") if isinstance(images, dict) else None
    sides = resize if isinstance(resize, list) else [resize]
    resample = RESAMPLES.get(str(images.get("resample", "bilinear"))) if isinstance(images, dict) else None
    well_formed = resize is None or (len(sides) == (2 if sides is resize else 1) and all(map(side_is_sane, sides)))
    first = images.get("first_crop") if isinstance(images, dict) else None
    well_formed &= first is None or (
        isinstance(first, list) and len(first) == 2 and all(isinstance(f, float | int) and 0 < f <= 4 for f in first)
    )
    if not well_formed or resample is None:
        raise UnusableInput(f"{where}: metadata {IMAGES_KEY} is malformed: {images}")
    return ImageSpec(
        (shape[0], shape[1], shape[2]),
        resize=(resize[0], resize[1]) if isinstance(resize, list) else resize,
        crop=bool(images.get("crop", False)),
        resample=resample,
        first_crop=None if first is None else (float(first[0]), float(first[1])),
    )


def _read_text_spec(text: Mapping[str, str], shape: Sequence[Any], where: str) -> TextSpec:
    fields = _read_json(text, TEXT_KEY, where)
    found = [fields.get(name) for name in TEXT_FIELDS] if isinstance(fields, dict) else []
    numbers = [number for number in found if isinstance(number, int) and number >= 0]
    if len(shape) != 1 or len(numbers) < len(TEXT_FIELDS):
        raise UnusableInput(f"{where}: metadata {TEXT_KEY} is malformed: {text[TEXT_KEY][:80]!r}")
    if TOKENIZER_KEY not in text or max(numbers[:-1]) >= numbers[-1]:
        raise UnusableInput(f"{where}: expected metadata {TOKENIZER_KEY}, and markers within its vocabulary")
    return TextSpec((as_length(shape[0], where),), text[TOKENIZER_KEY], *numbers)


def _read_json(text: Mapping[str, str], key: str, where: str) -> Any:
    if key not in text:
        return None
    try:
        return json.loads(text[key])
    except (ValueError, RecursionError):
        raise UnusableInput(f"{where}: metadata {key} is not valid JSON: {text[key][:80]!r}") from None


def _read_list(text: Mapping[str, str], key: str, where: str) -> Sequence[Any] | None:
    value = _read_json(text, key, where)
    if value is not None and not isinstance(value, list):
        raise UnusableInput(f"{where}: expected a list as metadata {key}, got {value!r}")
    return value
