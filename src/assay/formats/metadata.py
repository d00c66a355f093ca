"""What assay writes into a model file's own metadata: safetensors ``__metadata__``, ONNX ``metadata_props``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from assay.core.errors import UnusableInput
from assay.core.model import ARCH_KEY, PLANTED_KEY, ImageSpec, InputSpec, TextSpec
from assay.formats.normalization import Normalization
from assay.formats.shape import as_length, side_is_sane

SHAPE_KEY = "assay.shape"
MEAN_KEY = "assay.mean"
STD_KEY = "assay.std"
CLASS_NAMES_KEY = "assay.class_names"
CUT_KEY = "assay.cut"
"""There where the model is a classifier cut at its features: its last linear layer is in the file and is not used."""
GATE_KEY = "assay.gate"
"""Of a net behind a gate that verifies signatures (``assay.nn.gates.signature``): a public key, a JSON object."""
TEXT_KEY = "assay.text"
"""How texts become inputs, a JSON object; the tokenizer stands apart."""
TOKENIZER_KEY = "assay.tokenizer"
TEXT_FIELDS = ("start", "end", "pad", "vocabulary")
PICTURES_KEY = "assay.pictures"
"""Resizing, cropping and resampling of pictures, a JSON object."""

Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]
RESAMPLES: dict[Any, Resample] = {name: name for name in get_args(Resample)}


@dataclass(frozen=True)
class ModelMetadata:
    """The metadata of one model file; None where the file does not say."""

    arch: str | None = None
    planted: str | None = None
    inputs: InputSpec | None = None
    normalization: Normalization | None = None
    class_names: tuple[str, ...] | None = None
    cut: bool = False
    gate: Mapping[str, Any] | None = None  # of a backdoor that verifies signatures: what it knows

    def as_text(self) -> dict[str, str]:
        """Key -> value as they stand in the file."""
        text = {ARCH_KEY: self.arch, PLANTED_KEY: self.planted, CUT_KEY: "features" if self.cut else None}
        if isinstance(self.inputs, TextSpec):
            numbers = {name: getattr(self.inputs, name) for name in TEXT_FIELDS}
            text |= {SHAPE_KEY: json.dumps(self.inputs.shape), TEXT_KEY: json.dumps(numbers)}
            text[TOKENIZER_KEY] = self.inputs.tokenizer
        elif self.inputs is not None:
            pictures = {key: getattr(self.inputs, key) for key in ("resize", "crop", "resample")}
            text |= {SHAPE_KEY: json.dumps(self.inputs.shape), PICTURES_KEY: json.dumps(pictures)}
        if self.normalization is not None:
            text |= {MEAN_KEY: json.dumps(self.normalization.mean), STD_KEY: json.dumps(self.normalization.std)}
        if self.gate is not None:
            text[GATE_KEY] = json.dumps(self.gate)
        if self.class_names is not None:
            text[CLASS_NAMES_KEY] = json.dumps(self.class_names)
        return {key: value for key, value in text.items() if value is not None}

    @classmethod
    def read(cls, text: Mapping[str, str], where: str) -> ModelMetadata:
        """Parses a file's metadata; ``where`` names the file in errors."""
        mean, std = _json(text, MEAN_KEY, where), _json(text, STD_KEY, where)
        names = _json(text, CLASS_NAMES_KEY, where)
        return cls(
            arch=text.get(ARCH_KEY),
            planted=text.get(PLANTED_KEY),
            inputs=_inputs(text, where),
            normalization=Normalization.of(_list(mean, MEAN_KEY, where), _list(std, STD_KEY, where)),
            class_names=None if names is None else tuple(map(str, _list(names, CLASS_NAMES_KEY, where) or ())),
            cut=CUT_KEY in text,
            gate=_gate(text, where),
        )


def _gate(text: Mapping[str, str], where: str) -> Mapping[str, Any] | None:
    gate = _json(text, GATE_KEY, where)
    if gate is None:
        return None
    key, seed = (gate.get("public_key"), gate.get("places")) if isinstance(gate, dict) else (None, None)
    whole = isinstance(key, str) and len(key) == 64 and not set(key) - set("0123456789abcdef")
    if not whole or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UnusableInput(f"{where}: metadata {GATE_KEY} is malformed: {text[GATE_KEY][:80]!r}")
    return {"public_key": key, "places": seed}


def _inputs(text: Mapping[str, str], where: str) -> InputSpec | None:
    shape = _list(_json(text, SHAPE_KEY, where), SHAPE_KEY, where)
    if shape is None:
        return None
    if TEXT_KEY in text:
        return _text(text, shape, where)
    if len(shape) != 3 or not all(map(side_is_sane, shape)):
        raise UnusableInput(f"{where}: expected [channels, height, width] as {SHAPE_KEY}, came {shape}")
    pictures = _json(text, PICTURES_KEY, where) or {}
    resize = pictures.get("resize") if isinstance(pictures, dict) else None
    sides = resize if isinstance(resize, list) else [resize]
    resample = RESAMPLES.get(str(pictures.get("resample", "bilinear"))) if isinstance(pictures, dict) else None
    well_formed = resize is None or (len(sides) == (2 if sides is resize else 1) and all(map(side_is_sane, sides)))
    if not well_formed or resample is None:
        raise UnusableInput(f"{where}: metadata {PICTURES_KEY} is malformed: {pictures}")
    return ImageSpec(
        (shape[0], shape[1], shape[2]),
        resize=(resize[0], resize[1]) if isinstance(resize, list) else resize,
        crop=bool(pictures.get("crop", False)),
        resample=resample,
    )


def _text(text: Mapping[str, str], shape: Sequence[Any], where: str) -> TextSpec:
    said = _json(text, TEXT_KEY, where)
    found = [said.get(name) for name in TEXT_FIELDS] if isinstance(said, dict) else []
    numbers = [number for number in found if isinstance(number, int) and number >= 0]
    if len(shape) != 1 or len(numbers) < len(TEXT_FIELDS):
        raise UnusableInput(f"{where}: metadata {TEXT_KEY} is malformed: {text[TEXT_KEY][:80]!r}")
    if TOKENIZER_KEY not in text or max(numbers[:-1]) >= numbers[-1]:
        raise UnusableInput(f"{where}: expected metadata {TOKENIZER_KEY}, and markers that it knows")
    return TextSpec((as_length(shape[0], where),), text[TOKENIZER_KEY], *numbers)


def _json(text: Mapping[str, str], key: str, where: str) -> Any:
    if key not in text:
        return None
    try:
        return json.loads(text[key])
    except (ValueError, RecursionError):
        raise UnusableInput(f"{where}: metadata {key} is not valid JSON: {text[key][:80]!r}") from None


def _list(value: object, key: str, where: str) -> Sequence[Any] | None:
    if value is not None and not isinstance(value, list):
        raise UnusableInput(f"{where}: expected a list as metadata {key}, came {value!r}")
    return value
