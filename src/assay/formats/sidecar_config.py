"""Configuration files next to a bare safetensors file: Hugging Face's and timm's state the image size.

Only the size is taken from them. The user's own model may contain its normalization, and the files do not state this.
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


def read_sidecar_inputs(path: Path) -> tuple[ImageSpec, str] | None:
    """Return the input specification in a file next to ``path`` and that file's name, None without one."""
    processor, config = _read(path.parent, PREPROCESSOR), _read(path.parent, CONFIG)
    try:
        timm = config.get("pretrained_cfg")
        size = timm.get("input_size") if isinstance(timm, dict) else config.get("input_size")
        if not processor and size is not None:
            return ImageSpec(as_shape(size, CONFIG)), CONFIG
        unused = Normalization.identity(1)
        found = read_preprocessing(processor or None, config, unused, str(path.parent))
    except UnusableInput:  # an unusable hint is no hint
        return None
    return None if found.guessed else (found.inputs, PREPROCESSOR if processor else CONFIG)


def _read(folder: Path, name: str) -> Mapping[str, Any]:
    """Return the JSON object in a file, empty if it cannot be read."""
    try:
        return read_json(inside(folder, name))
    except (UnusableInput, OSError):
        return {}
