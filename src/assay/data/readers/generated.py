"""Reader of generated data: ``signs``, ``signs:<classes>``, ``digits``."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.data.images import resize_images
from assay.data.request import Request, Source
from assay.data.synthetic import Signs, digits

DEFAULT_CLASSES = 10

# Unlabelled signs only have to vary.
UNLABELLED_CLASSES = 100


def is_synthetic(text: str) -> bool:
    """Return True if ``text`` names generated data."""
    return text in {"signs", "digits"} or text.startswith("signs:")


def read_synthetic(text: str, request: Request) -> Source:
    """Return the labels of generated data. The images are drawn on request.

    Args:
        text: Name of the data; an empty text stands for signs without labels, for audits without data.
        request: The requested samples.
    """
    return _read_digits(request) if text == "digits" else _read_signs(text, request)


def _read_digits(request: Request) -> Source:
    task = digits(seed=request.seed)

    def decode(split: str, rows: Tensor) -> tuple[Tensor, Counter[str]]:
        return resize_images(task.splits[split].x[rows], request.image_spec), Counter()

    splits = {split: _draw(Split(torch.arange(len(part)), part.y), request) for split, part in task.splits.items()}
    totals = {split: len(part) for split, part in task.splits.items()}
    return Source(
        task.name, splits, decode, task.class_names, kind="generated data", labels_from="the generator", totals=totals
    )


def _read_signs(text: str, request: Request) -> Source:
    _, height, width = request.image_spec.shape
    count = _class_count(text, request.num_classes or DEFAULT_CLASSES) if text else UNLABELLED_CLASSES
    per_class = None if request.limit is None else max(8, -(-request.limit * 7 // count))
    signs = Signs(count, max(8, height, width), per_class, request.seed)

    def decode(split: str, rows: Tensor) -> tuple[Tensor, Counter[str]]:
        return resize_images(signs.images(split, rows), request.image_spec), Counter()

    labels = {split: signs.labels(split) for split in signs.counts}
    splits = {split: _draw(Split(torch.arange(len(y)), y), request) for split, y in labels.items()}
    totals = {split: len(y) for split, y in labels.items()}
    if not text:
        splits = {split: Split(part.x, None) for split, part in splits.items()}
        return Source("signs without labels (no data given)", splits, decode, kind="generated data", totals=totals)
    return Source(
        signs.name, splits, decode, signs.class_names, kind="generated data", labels_from="the generator", totals=totals
    )


def _draw(split: Split, request: Request) -> Split:
    """Return a random draw in random order if there is a limit."""
    return split if request.limit is None else split.sample(request.limit, seed=request.seed)


def _class_count(text: str, default: int) -> int:
    number = text.partition(":")[2]
    if text.startswith("signs:") and not (number.isdecimal() and int(number)):
        raise UnusableInput(f"{text}: expected signs:<number of classes>, for instance signs:100")
    return int(number) if number else default
