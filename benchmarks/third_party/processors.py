"""Inputs that assay makes of images, compared with the image processors of transformers.

python benchmarks/run.py processors     # -> benchmarks/results/processors.json

Each class of transformers with a pillow backend gets its defaults, and each of ``SETTINGS`` on top of them. The images
are photos of ImageNet in sizes that no setting is made for. A class whose first settings (``FIRST``) are all refused
does other work than resizing and cropping, and gets no further ones.

Outcomes: equal, up to one step of 8 bits; square, for processors whose shapes depend on the image: equal on an image of
the input's size, and a note states the difference; refused, in one line; fails, if transformers fails with these
settings; different.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import transformers
from lib import commands
from lib.paths import SHARED
from lib.results import ResumableRows
from PIL import Image
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from assay.core.errors import UnusableInput
from assay.data.images import decode_image
from assay.formats.huggingface.image_processor import load_image_processor, process_image
from assay.formats.huggingface.preprocessing import Preprocessing, read_preprocessing

# Sizes (H, W) of the photos.
SIZES = ((333, 251), (187, 299), (96, 131), (226, 226))
STEP = 1.0 + 1e-3  # largest difference of "equal", in steps of 8 bits
COMMON = (  # measured first
    "LevitImageProcessor", "PoolFormerImageProcessor", "PerceiverImageProcessor", "ViTImageProcessor",
    "CLIPImageProcessor", "ConvNextImageProcessor", "DeiTImageProcessor", "EfficientNetImageProcessor",
    "MobileViTImageProcessor", "MobileNetV1ImageProcessor", "MobileNetV2ImageProcessor", "BitImageProcessor",
    "BeitImageProcessor", "PvtImageProcessor", "SiglipImageProcessor", "SegformerImageProcessor",
)  # fmt: skip
FIRST = ("defaults", "height 160, width 160", "shortest edge 160, crop 128")
SQUARE, EDGE = {"height": 160, "width": 160}, {"shortest_edge": 160}
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "size 160": {"size": 160},
    "size [160, 192]": {"size": [160, 192]},
    "height 160, width 160": {"size": SQUARE},
    "height 160, width 192": {"size": {"height": 160, "width": 192}},
    "shortest edge 160": {"size": EDGE},
    "shortest edge 160, no crop": {"size": EDGE, "do_center_crop": False},
    "shortest edge 160, crop 128": {"size": EDGE, "do_center_crop": True, "crop_size": 128},
    "shortest edge 100, crop 128 x 120": {
        "size": {"shortest_edge": 100}, "do_center_crop": True, "crop_size": {"height": 128, "width": 120},
    },
    "shortest edge 400, crop_pct 0.875": {"size": {"shortest_edge": 400}, "crop_pct": 0.875},
    "shortest edge 160, longest edge 200": {"size": {"shortest_edge": 160, "longest_edge": 200}},
    "longest edge 200": {"size": {"longest_edge": 200}},
    "180 x 200, crop 160": {"size": {"height": 180, "width": 200}, "do_center_crop": True, "crop_size": 160},
    "crop 96 x 112": {"crop_size": [96, 112], "do_center_crop": True},
    "crop_pct 0.9": {"crop_pct": 0.9},
    "crop_pct 0.6, size 160": {"size": SQUARE, "crop_pct": 0.6},
    "no resize, crop 96": {"do_resize": False, "do_center_crop": True, "crop_size": 96},
    "no resize": {"do_resize": False},
    "no crop": {"do_center_crop": False},
    "crop": {"do_center_crop": True},
    "nearest": {"resample": 0},
    "lanczos": {"resample": 1},
    "bilinear": {"resample": 2},
    "bicubic": {"resample": 3},
    "box": {"resample": 4},
    "hamming": {"resample": 5},
    "rescale_factor 1/127.5": {"rescale_factor": 1 / 127.5},
    "rescale_factor 1/127.5, offset": {"rescale_factor": 1 / 127.5, "rescale_offset": True},
    "no rescale": {"do_rescale": False},
    "no normalize": {"do_normalize": False},
    "no rescale, no normalize": {"do_rescale": False, "do_normalize": False},
    "mean and std": {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.3, 0.2, 0.1], "do_normalize": True},
    "one mean and std": {"image_mean": 0.4, "image_std": 0.3, "do_normalize": True},
    "mean and std null": {"image_mean": None, "image_std": None},
    "do_normalize null": {"do_normalize": None},
    "include_top": {"include_top": True},
    "no include_top": {"include_top": False},
    "flip of channels": {"do_flip_channel_order": True},
    "no flip of channels": {"do_flip_channel_order": False},
    "grayscale": {"do_grayscale": True},
    "no RGB": {"do_convert_rgb": False},
    "pad to 256": {"do_pad": True, "pad_size": {"height": 256, "width": 256}},
}  # fmt: skip


@cache
def photos() -> list[Image.Image]:
    """Return one photo for each size."""
    paths = sorted((SHARED / "data" / "imagenet20").glob("*.jpg"))[: len(SIZES)]
    return [Image.open(path).convert("RGB").resize((w, h)) for path, (h, w) in zip(paths, SIZES, strict=True)]


def processor_classes() -> list[str]:
    """Return the names of all image processors with a pillow backend, without the suffix of the backend."""
    entries = IMAGE_PROCESSOR_MAPPING_NAMES.values()
    names = {entry["pil"] for entry in entries if isinstance(entry, dict) and entry.get("pil")}
    plain = (name.removesuffix("Pil") for name in names)
    return sorted(plain, key=lambda name: (name not in COMMON, name))


def difference(found: Preprocessing, image: Image.Image, expected: np.ndarray | None) -> float:
    """Return the largest difference in steps of 8 bits; infinity for other shapes.

    Args:
        found: assay's preprocessing.
        image: The image.
        expected: Output of transformers.
    """
    if expected is None or expected.shape != found.inputs.shape:
        return float("inf")
    file = io.BytesIO()
    image.save(file, format="PPM")
    mean, std = (np.array(values).reshape(-1, 1, 1) for values in (found.normalization.mean, found.normalization.std))
    own = (decode_image(file.getvalue(), found.inputs, "photo").numpy() - mean) / std
    return float((np.abs((own[::-1] if found.flip else own) - expected) * std).max() * 255)


def measure(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the outcome of one class with some settings.

    Args:
        name: Class of transformers.
        settings: Settings on top of its defaults.
    """
    stated = {"image_processor_type": name, **settings}
    try:
        found = read_preprocessing(stated, {}, None, "settings")
    except UnusableInput as error:
        return {"outcome": "refused", "reason": str(error)}
    processor = load_image_processor({key: value for key, value in stated.items() if value is not None}, None)
    images = photos() if not settings else [photos()[0], photos()[2]]
    expected = [process_image(processor, np.asarray(image)) for image in images]
    if any(output is None for output in expected):
        return {"outcome": "fails"}
    if any("a shape that depends on the image" in note for note in found.notes):
        _, height, width = found.inputs.shape
        image = photos()[0].resize((width, height))
        worst = difference(found, image, process_image(processor, np.asarray(image)))
        return {"outcome": "square" if worst <= STEP else "different", "steps": round(worst, 3)}
    worst = max(difference(found, image, output) for image, output in zip(images, expected, strict=True))
    return {"outcome": "equal" if worst <= STEP else "different", "steps": round(worst, 3), "notes": len(found.notes)}


def measure_class(name: str) -> dict[str, Any]:
    """Return the outcomes of one class with all settings."""
    rows = {setting: measure(name, SETTINGS[setting]) for setting in FIRST}
    if any(row["outcome"] != "refused" for row in rows.values()):
        rows = {setting: rows.get(setting) or measure(name, changes) for setting, changes in SETTINGS.items()}
    reasons = Counter(row["reason"] for row in rows.values() if "reason" in row)
    return {
        "counts": dict(Counter(row["outcome"] for row in rows.values())),
        "steps": max((row["steps"] for row in rows.values() if "steps" in row), default=None),
        "outcomes": {setting: row["outcome"] for setting, row in rows.items()},
        "reasons": dict(reasons.most_common(3)),
    }


def summarize(rows: dict[str, Any]) -> dict[str, Any]:
    """Return the head of the result file."""
    total = Counter(outcome for row in rows.values() for outcome in row["outcomes"].values())
    return {
        "transformers": transformers.__version__,
        "classes": len(processor_classes()),
        "settings": len(SETTINGS),
        "first_settings": len(FIRST),
        "images": len(SIZES),
        "counts": dict(total),
    }


def main() -> None:
    """Measure the classes without a row, and write the result file."""
    commands.parser(__doc__).parse_args()
    warnings.simplefilter("ignore")
    rows = ResumableRows("processors", summarize)
    for name in rows.missing(processor_classes()):
        rows.add(name, measure_class(name))


def cli() -> None:
    """Run the command line."""
    main()
