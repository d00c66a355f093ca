"""Reader of image folders: one folder for each class, also below train, test, ..., or flat with labels in the names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.data.class_names import as_numbers
from assay.data.codecs import CODECS
from assay.data.image_files import SUFFIXES, count_unused, folders_in, images_below, images_in
from assay.data.images import decode_images
from assay.data.request import KNOWN_SPLITS, NO_LABELS, SPLIT_SYNONYMS, NamesFrom, Request, Source, split_name
from assay.io.files import check_plain_file

LABELLED_NAME = re.compile(r".*_(\d{1,6})")

# Distinct numbers count the images if their range is at most this many times their number.
DENSE_RANGE = 2

# Files next to images that often hold labels.
TABLES = {".csv", ".tsv", ".json", ".jsonl", ".txt", ".xml"}

Roots = Mapping[str, Path]
Files = Mapping[str, Sequence[Path]]


def read_folder(path: Path, request: Request) -> Source:
    """Read a folder of images.

    Args:
        path: The folder.
        request: The requested samples.

    Raises:
        UnusableInput: There are no images.
    """
    roots = _split_folders(path) or {"all": path}
    files, source = _find(path, roots, request)
    return _read(files, source, path, request)


def _split_folders(path: Path) -> Roots:
    """Return the folders of splits by split; empty if the folders are classes.

    Raises:
        UnusableInput: Two folders are the same split.
    """
    folders = folders_in(path)
    parts = [folder for folder in folders if folder.name.lower() in {*KNOWN_SPLITS, *SPLIT_SYNONYMS}]
    names = [split_name(folder.name) for folder in parts]
    if len(set(names)) < len(names):
        shown = ", ".join(folder.name for folder in parts)
        raise UnusableInput(f"{path}: expected one folder for each split, got {shown}. Fix: give one of the folders.")
    others = any(images_in(folder) for folder in folders if folder not in parts)
    if others and all(images_in(folder) for folder in parts):  # a class can be called "train" as well
        return {}
    return dict(zip(names, parts, strict=True))


def _find(path: Path, roots: Roots, request: Request) -> tuple[Files, Source]:
    """Return the image files of each split, and a source with their labels in place of the inputs."""
    name = path.resolve().name
    if not request.labels:
        files = {split: images_below(root) for split, root in roots.items()}
        _require_all(files, roots)
        return files, Source(name, {split: _labels(None) for split in files})
    # Class numbers count over all splits together, because a split may lack a class.
    names = sorted({folder.name for root in roots.values() for folder in folders_in(root) if images_in(folder)})
    has_loose_images = any(images_in(root) for root in roots.values())
    if not names or (len(names) == 1 and has_loose_images):  # a single folder (thumbnails, ...) is not a class then
        return _find_flat(name, roots, request)
    return _find_classes(name, roots, names)


def _find_classes(name: str, roots: Roots, names: list[str]) -> tuple[Files, Source]:
    """Return the files of one folder for each class."""
    values = as_numbers(names)
    if values is not None:
        names = [text for _, text in sorted(zip(values, names, strict=True))]
    numbers = {text: label for label, text in enumerate(names)}
    pairs = {
        split: [(file, numbers[folder.name]) for folder in folders_in(root) for file in images_in(folder)]
        for split, root in roots.items()
    }
    files = {split: [file for file, _ in found] for split, found in pairs.items()}
    splits = {split: _labels([label for _, label in found]) for split, found in pairs.items()}
    return files, Source(name, splits, tuple(names), NamesFrom.FOLDERS, labels_from="folder names")


def _find_flat(name: str, roots: Roots, request: Request) -> tuple[Files, Source]:
    """Return the files of one place; labels, if any, are at the ends of their names."""
    files = {split: images_in(root) for split, root in roots.items()}
    _require_all(files, roots)
    unlabelled = Source(name, {split: _labels(None) for split in files})
    endings = {split: _number_endings(images) for split, images in files.items()}
    numbers = {split: texts for split, texts in endings.items() if texts}
    if not numbers:
        return files, replace(unlabelled, notes=_unread_tables(roots))
    example = next(files[split][0] for split in numbers).name
    reason = _reason_against_labels(list(numbers.values()), request.num_classes)
    if reason:
        note = f"no labels: the numbers at the ends of the file names ({example}) are not used as classes: {reason}"
        return files, replace(unlabelled, notes=(note,))
    splits = {split: _labels([int(text) for text in numbers[split]] if split in numbers else None) for split in files}
    note = f"labels were read off the ends of the file names ({example}). Fix if they are not classes: {NO_LABELS}"
    return files, Source(name, splits, notes=(note,), labels_from="ends of file names")


def _read(files: Files, source: Source, path: Path, request: Request) -> Source:
    """Return a source with the inputs of the requested files."""
    remarks, splits = Counter[str](), {}
    for split, images in files.items():
        y = source.splits[split].y
        index = request.of_split(split, list(files)).choose(len(images), y)
        chosen = [images[number] for number in index.tolist()]
        x = decode_images(((str(file), file) for file in chosen), len(chosen), request.image_spec, remarks)
        splits[split] = Split(x, None if y is None else y[index])
    return replace(
        source,
        splits=splits,
        notes=(*source.notes, *CODECS[request.spec.modality].notes(remarks, request.spec)),
        kind="folder of images",
        totals={split: len(images) for split, images in files.items()},
        left_out=count_unused(path, [file for images in files.values() for file in images]),
    )


def _labels(labels: list[int] | None) -> Split:
    """Return labels without inputs."""
    return Split(torch.empty(0), None if labels is None else torch.tensor(labels, dtype=torch.int64))


def _require_all(files: Files, roots: Roots) -> None:
    for split, images in files.items():
        _require_images(images, roots[split])


def _unread_tables(roots: Roots) -> tuple[str, ...]:
    """Return a note on files next to unlabelled images that may hold labels."""
    tables = [file for root in roots.values() for file in sorted(root.iterdir()) if file.suffix.lower() in TABLES]
    if not tables:
        return ()
    shown = ", ".join(file.name for file in tables[:3])
    return (f"no labels: {shown} is not read. Fix: give one folder of images for each class, or a parquet file",)


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


def _require_images(files: Sequence[Path], root: Path) -> None:
    if not files:
        for entry in sorted(root.rglob("*")):
            if entry.suffix.lower() in SUFFIXES and not entry.exists():
                check_plain_file(entry)  # names a link to a missing file
        others = ", ".join(f"{kind}: {count:,}" for kind, count in count_unused(root, ()).items())
        got = f", got {others}" if others else ", none found"
        raise UnusableInput(
            f"{root}: expected images ({', '.join(sorted(SUFFIXES))}) or one folder for each class{got}"
        )
