"""Reader of image folders: one folder for each class, also below train, test, ..., or flat with labels in the names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.data.image_files import SUFFIXES, folders_in, images_below, images_in
from assay.data.images import decode_images
from assay.data.request import KNOWN_SPLITS, NO_LABELS, SPLIT_SYNONYMS, Request, Source, split_name

LABELLED_NAME = re.compile(r".*_(\d{1,6})")

# Distinct numbers count the images if their range is at most this many times their number.
DENSE_RANGE = 2

Roots = Mapping[str, Path]


def read_folder(path: Path, request: Request) -> Source:
    """Read a folder of images.

    Args:
        path: The folder.
        request: The requested samples.

    Raises:
        UnusableInput: There are no images.
    """
    parts = {
        split_name(folder.name): folder
        for folder in folders_in(path)
        if folder.name.lower() in {*KNOWN_SPLITS, *SPLIT_SYNONYMS}
    }
    roots: Roots = parts or {"all": path}
    name = path.resolve().name
    if not request.labels:
        return _read_unlabelled(name, {split: images_below(root) for split, root in roots.items()}, roots, request)
    # Class numbers count over all splits together, because a split may lack a class.
    names = sorted({folder.name for root in roots.values() for folder in folders_in(root) if images_in(folder)})
    has_loose_images = any(images_in(root) for root in roots.values())
    if not names or (len(names) == 1 and has_loose_images):  # a single folder (thumbnails, ...) is not a class then
        return _read_flat(name, roots, request)
    return _read_classes(name, roots, names, request)


def _read_classes(name: str, roots: Roots, names: list[str], request: Request) -> Source:
    """Read one folder for each class."""
    by_folder = not all(text.isdecimal() for text in names)  # otherwise the folders' names are the labels
    numbers = {text: index if by_folder else int(text) for index, text in enumerate(names)}
    splits = {}
    for split, root in roots.items():
        files = [(file, numbers[folder.name]) for folder in folders_in(root) for file in images_in(folder)]
        splits[split] = _read_split(
            [file for file, _ in files], [label for _, label in files], request.of_split(split, list(roots))
        )
    return Source(name, splits, tuple(names) if by_folder else None, named_by_folder=by_folder)


def _read_flat(name: str, roots: Roots, request: Request) -> Source:
    """Read images from one place; labels, if any, are at the ends of their names."""
    files = {split: images_in(root) for split, root in roots.items()}
    endings = {split: _number_endings(images) for split, images in files.items()}
    numbers = {split: texts for split, texts in endings.items() if texts}
    if not numbers:
        return _read_unlabelled(name, files, roots, request)
    example = next(files[split][0] for split in numbers).name
    reason = _reason_against_labels(list(numbers.values()), request.num_classes)
    if reason:
        note = f"no labels: the numbers at the ends of the file names ({example}) are not used as classes: {reason}"
        return _read_unlabelled(name, files, roots, request, notes=(note,))
    splits = {}
    for split, images in files.items():
        _require_images(images, roots[split])
        labels = [int(text) for text in numbers[split]] if split in numbers else None
        splits[split] = _read_split(images, labels, request.of_split(split, list(roots)))
    note = f"labels were read off the ends of the file names ({example}). Fix if they are not classes: {NO_LABELS}"
    return Source(name, splits, notes=(note,))


def _read_unlabelled(
    name: str, files: Mapping[str, list[Path]], roots: Roots, request: Request, *, notes: tuple[str, ...] = ()
) -> Source:
    splits = {}
    for split, images in files.items():
        _require_images(images, roots[split])
        splits[split] = _read_split(images, None, request.of_split(split, list(files)))
    return Source(name, splits, notes=notes)


def _number_endings(files: list[Path]) -> list[str]:
    """Return the number at the end of each file's name; empty if a file has none."""
    matches = [LABELLED_NAME.fullmatch(file.stem) for file in files]
    return [match[1] for match in matches if match] if all(matches) else []


def _reason_against_labels(numbers: Sequence[Sequence[str]], num_classes: int | None) -> str:
    """Return why the numbers at the ends of file names, by split, are not labels; empty if they can be.

    Cameras number their images too: IMG_1000.png is not an image of class 1000.
    """
    values = [int(text) for part in numbers for text in part]
    largest, distinct = max(values), set(values)
    if num_classes is not None and largest >= num_classes:
        return f"they go up to {largest} and the model has {num_classes} classes"
    if len(distinct) == 1:
        return "they are all the same"
    if any(len(set(map(int, part))) < len(part) for part in numbers):
        return ""  # repeated numbers are labels
    padded = num_classes is not None and max(len(text) for part in numbers for text in part) > len(str(num_classes - 1))
    if padded or largest - min(distinct) + 1 <= DENSE_RANGE * len(distinct):
        return "they count the images"
    return ""


def _require_images(files: list[Path], root: Path) -> None:
    if not files:
        raise UnusableInput(
            f"{root}: expected images ({', '.join(sorted(SUFFIXES))}) or one folder for each class, none found"
        )


def _read_split(files: list[Path], labels: list[int] | None, request: Request) -> Split:
    y = None if labels is None else torch.tensor(labels, dtype=torch.int64)
    index = request.choose(len(files), y)
    chosen = [files[number] for number in index.tolist()]
    x = decode_images(((str(file), file) for file in chosen), len(chosen), request.image_spec)
    return Split(x, None if y is None else y[index])
