"""The files beside a bare safetensors file: Hugging Face's and timm's say there which pictures the net takes.

Only the size is taken from them: whether a net of the user's own has its normalization inside, they cannot know.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec
from assay.formats.huggingface.preprocessing import read_preprocessing
from assay.formats.normalization import Normalization
from assay.formats.shape import as_shape
from assay.io.files import inside, read_json

PREPROCESSOR, CONFIG = "preprocessor_config.json", "config.json"


def inputs_beside(path: Path) -> tuple[ImageSpec, str] | None:
    """The pictures that a file beside ``path`` describes and that file's name; None where there is none."""
    processor, config = _read(path.parent, PREPROCESSOR), _read(path.parent, CONFIG)
    try:
        timm = config.get("pretrained_cfg")
        size = timm.get("input_size") if isinstance(timm, dict) else config.get("input_size")
        if not processor and size is not None:
            return ImageSpec(as_shape(size, CONFIG)), CONFIG
        unused = Normalization.identity(1)
        found = read_preprocessing(processor or None, config, unused, str(path.parent))
    except UnusableInput:  # a hint that makes no sense is none
        return None
    return None if found.guessed else (found.inputs, PREPROCESSOR if processor else CONFIG)


def _read(folder: Path, name: str) -> Mapping[str, Any]:
    """The JSON object in a file; empty where there is none that can be read."""
    try:
        return read_json(inside(folder, name))
    except (UnusableInput, OSError):
        return {}
