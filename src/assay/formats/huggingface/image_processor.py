"""The image processors of transformers: their defaults, and their output as a reference.

transformers gets known settings alone, as plain data in an empty temporary folder. No file of the model is in reach,
and remote code is refused.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from assay.formats.huggingface.quiet import quiet

TYPE_KEYS = ("image_processor_type", "feature_extractor_type")
TYPE_NAME = re.compile(r"\w{1,80}(ImageProcessor|FeatureExtractor)(Fast)?")  # other classes are never looked up
# Settings for transformers, next to switches ``do_...``. Others could replace methods, or ask for gigabytes.
KNOWN_SETTINGS = {
    *TYPE_KEYS, "size", "crop_size", "pad_size", "crop_pct", "resample", "rescale_factor", "rescale_offset",
    "image_mean", "image_std", "include_top",
}  # fmt: skip
OF_SOME_CLASSES = ("rescale_offset", "include_top", "do_flip_channel_order", "crop_pct")
STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")


def load_image_processor(settings: Mapping[str, Any], model_type: object) -> Any:
    """Return the pillow-based image processor of transformers for some settings.

    Args:
        settings: Content of ``preprocessor_config.json``, its sizes within bounds.
        model_type: ``model_type`` of the model's config. Settings without a class use its default.

    Returns:
        The processor, or None if transformers has none for these settings.
    """
    names = [settings[key] for key in TYPE_KEYS if settings.get(key) is not None]
    if not all(isinstance(name, str) and TYPE_NAME.fullmatch(name) for name in names):
        return None
    if not names and not isinstance(model_type, str):
        return None
    from transformers import AutoImageProcessor, BaseImageProcessor

    plain = {
        key: value
        for key, value in settings.items()
        if key in KNOWN_SETTINGS or (key.startswith("do_") and isinstance(value, bool))
    }
    with tempfile.TemporaryDirectory() as folder, quiet():
        try:
            Path(folder, "preprocessor_config.json").write_text(json.dumps(plain), encoding="utf-8")
            Path(folder, "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
            found = AutoImageProcessor.from_pretrained(
                folder, backend="pil", trust_remote_code=False, local_files_only=True
            )
        except Exception:  # settings fail in as many ways as there are processors
            return None
    return found if isinstance(found, BaseImageProcessor) else None


def complete_settings(processor: Any) -> dict[str, Any]:
    """Return the settings of a processor of transformers, the defaults of its class included."""
    settings = dict.fromkeys(STEPS, False) | processor.to_dict()  # a default of None means False and is left out
    # Every processor keeps these settings, and only the classes with such an attribute use them.
    return {
        key: value for key, value in settings.items() if key not in OF_SOME_CLASSES or hasattr(type(processor), key)
    }


def process_image(processor: Any, image: np.ndarray) -> np.ndarray | None:
    """Return the output (C, H, W) of a processor of transformers: None if it fails, empty for inputs of another kind.

    Args:
        processor: The processor of ``load_image_processor``.
        image: Image (H, W, 3) of 8 bits per channel.
    """
    from PIL import Image

    try:
        with quiet():
            outputs = processor(Image.fromarray(image), return_tensors="np")
    except Exception:  # as above
        return None
    found = np.asarray(outputs["pixel_values"]) if "pixel_values" in outputs else np.empty(0)
    return found[0] if found.ndim == 4 and len(found) == 1 else np.empty(0)
