"""Reader of generated data: ``signs``, ``signs:<classes>``, ``digits``."""

from __future__ import annotations

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.data.images import resize_images
from assay.data.request import Request, Source
from assay.data.synthetic import digits, signs

DEFAULT_CLASSES = 10

# Unlabelled signs only have to vary.
UNLABELLED_CLASSES = 100


def is_synthetic(text: str) -> bool:
    """Return True if ``text`` names generated data."""
    return text in {"signs", "digits"} or text.startswith("signs:")


def read_synthetic(text: str, request: Request) -> Source:
    """Generate data.

    Args:
        text: Name of the data; an empty text stands for signs without labels, for audits without data.
        request: The requested samples.
    """
    if text == "digits":
        task = digits(seed=request.seed)
    else:
        _, height, width = request.image_spec.shape
        count = _class_count(text, request.num_classes or DEFAULT_CLASSES) if text else UNLABELLED_CLASSES
        size = max(8, height, width)
        per_class = None if request.limit is None else max(8, -(-request.limit * 7 // count))
        task = signs(count, size=size, seed=request.seed, per_class=per_class)
    splits = {}
    for name, split in task.splits.items():
        part = split if request.limit is None else split.sample(request.limit, seed=request.seed)
        splits[name] = Split(resize_images(part.x, request.image_spec), part.y if text else None)
    name = task.name if text else "signs without labels (no data given)"
    return Source(
        name,
        splits,
        task.class_names if text else None,
        kind="generated data",
        labels_from="the generator" if text else "",
        totals={split: len(part) for split, part in task.splits.items()},
    )


def _class_count(text: str, default: int) -> int:
    number = text.partition(":")[2]
    if text.startswith("signs:") and not (number.isdecimal() and int(number)):
        raise UnusableInput(f"{text}: expected signs:<number of classes>, for instance signs:100")
    return int(number) if number else default
