"""Facts about a model in the files next to it: image size, normalization and class names.

Hugging Face, optimum and timm write ``config.json`` and ``preprocessor_config.json`` or ``processor_config.json``.
Readers of all formats use this module, so that the same files mean the same for each. Every fact taken from them is a
note.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec
from assay.formats.class_names import read_class_names
from assay.formats.huggingface.preprocessing import read_preprocessing
from assay.formats.metadata import RESAMPLES
from assay.formats.normalization import Normalization
from assay.formats.options import LoadOptions
from assay.formats.processor_file import PREPROCESSOR, PROCESSOR, ProcessorSettings, choose_settings
from assay.formats.shape import as_shape, format_shape
from assay.io.files import inside, read_json

CONFIG = "config.json"
FILES = (CONFIG, PROCESSOR, PREPROCESSOR)
SUBFOLDERS = ("onnx",)  # folders for the model file below the folder with the configs


class FlippedChannels(nn.Module):
    """A model for BGR images behind one for RGB images."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for images (N, C, H, W) with their channels in reverse order."""
        return self.net(x.flip(1))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class SiblingMetadata:
    """Facts in the files next to a model file. None: no file states them."""

    inputs: ImageSpec | None = None
    normalization: Normalization | None = None
    class_names: tuple[str, ...] | None = None
    flip: bool = False  # the model takes BGR
    source: str = ""  # name of the file with inputs and normalization
    notes: tuple[str, ...] = ()  # on the facts that are not usable

    def normalize(self, module: nn.Module, channels: int) -> nn.Module:
        """Return a module with the stated normalization and channel order in front.

        Args:
            module: Module for normalized images (N, C, H, W).
            channels: Number of channels C.
        """
        inner = FlippedChannels(module) if self.flip else module
        return inner if self.normalization is None else self.normalization.around(inner, channels)

    def size_note(self) -> str:
        """Return the note on an image size taken from these files."""
        assert self.inputs is not None
        return f"the input size is {format_shape(self.inputs.shape)}, from {self.source} next to the model"

    def normalization_note(self) -> str:
        """Return the note on a normalization taken from these files."""
        assert self.normalization is not None
        mean, std = (
            ", ".join(f"{value:.4g}" for value in values)
            for values in (self.normalization.mean, self.normalization.std)
        )
        return (
            f"the normalization (mean {mean}; std {std}) is from {self.source} next to the model. "
            "Fix: give mean and std (0 and 1) if the model normalizes the images itself."
        )


def sibling_metadata(path: Path, options: LoadOptions) -> SiblingMetadata:
    """Return the facts in the files next to a model file.

    Args:
        path: The model file. For a file in a folder ``onnx``, the files may lie one folder above.
        options: The user's options. A given normalization or shape replaces the files'.
    """
    for folder in _folders(path):
        found, notes = _read_folder(folder)
        if found or notes:
            return _read(found, str(folder), options, notes)
    return SiblingMetadata()


def sibling_files(path: Path) -> list[Path]:
    """Return the existing files next to a model file that ``sibling_metadata`` reads."""
    for folder in _folders(path):
        if found := [folder / name for name in FILES if (folder / name).is_file()]:
            return found
    return []


def _folders(path: Path) -> list[Path]:
    folder = path.parent
    return [folder, folder.parent] if folder.resolve().name in SUBFOLDERS else [folder]


def _read_folder(folder: Path) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Return the files of a folder by name, and notes on unusable ones."""
    found, notes = {}, []
    for name in FILES:
        if not (folder / name).exists() and not (folder / name).is_symlink():
            continue
        try:
            found[name] = read_json(inside(folder, name))
        except (UnusableInput, OSError) as error:
            notes.append(f"{name} next to the model is not used: {error}")
    return found, tuple(notes)


def _read(
    files: dict[str, dict[str, Any]], where: str, options: LoadOptions, notes: tuple[str, ...]
) -> SiblingMetadata:
    config = files.get(CONFIG, {})
    try:
        names = read_class_names(config, f"{where}/{CONFIG}")
    except UnusableInput as error:
        names, notes = None, (*notes, f"the class names next to the model are not used: {error}")
    known = SiblingMetadata(class_names=names, notes=notes)
    try:
        processor = choose_settings(files)
        if processor.settings is None:
            return replace(known, **_timm_facts(config)) if "pretrained_cfg" in config else _size_alone(known, config)
        return _read_processor(known, processor, config, options)
    except UnusableInput as error:
        return replace(known, notes=(*notes, f"the preprocessing next to the model is not used: {error}"))


def _read_processor(
    known: SiblingMetadata, processor: ProcessorSettings, config: Mapping[str, Any], options: LoadOptions
) -> SiblingMetadata:
    """Return the facts with those of an image processor; the size alone if its normalization is not usable."""
    given, notes, source = options.normalization, (*known.notes, *processor.notes), processor.source
    try:
        found = read_preprocessing(processor.settings, config, given, source, shape=options.shape)
        normalization = found.normalization
    except UnusableInput as error:
        found = read_preprocessing(processor.settings, config, Normalization.identity(1), source, shape=options.shape)
        normalization, notes = None, (*notes, f"the normalization next to the model is not used: {error}")
    inputs, notes = None if found.guessed else found.inputs, (*notes, *found.notes)
    return replace(known, inputs=inputs, normalization=normalization, flip=found.flip, source=source, notes=notes)


def _size_alone(known: SiblingMetadata, config: Mapping[str, Any]) -> SiblingMetadata:
    """Return the facts with the image size of a config without a preprocessor's file."""
    size = config.get("input_size")
    if size is not None:
        return replace(known, inputs=ImageSpec(as_shape(size, CONFIG)), source=CONFIG)
    if config.get("image_size") is None:
        return known
    found = read_preprocessing(None, config, Normalization.identity(1), CONFIG)
    return replace(known, inputs=found.inputs, source=CONFIG)


def _timm_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return inputs and normalization of a timm config; raise UnusableInput for malformed values."""
    stated = config["pretrained_cfg"]
    if not isinstance(stated, dict):
        raise UnusableInput(f"{CONFIG}: expected pretrained_cfg as an object, got {str(stated)[:40]}")
    facts: dict[str, Any] = {"source": CONFIG, "normalization": Normalization.of(stated.get("mean"), stated.get("std"))}
    if stated.get("input_size") is None:
        return facts
    shape = as_shape(stated["input_size"], CONFIG)
    resample = RESAMPLES.get(stated.get("interpolation", "bicubic"), "bilinear")
    fraction, mode = stated.get("crop_pct", 0.875), stated.get("crop_mode", "center")
    if mode != "center" or not isinstance(fraction, int | float) or not 0.05 <= fraction <= 1:
        return {**facts, "inputs": ImageSpec(shape, resample=resample)}
    resize = int(shape[1] / fraction)  # timm: the shortest edge before the crop
    return {**facts, "inputs": ImageSpec(shape, resize=resize, crop=True, resample=resample)}
