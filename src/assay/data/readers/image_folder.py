"""Reader of image folders: one folder for each class, also below train, test, ..., or flat with labels in the names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import Modality
from assay.data.class_names import as_numbers
from assay.data.codecs import CODECS
from assay.data.image_files import SUFFIXES, count_unused, folders_in, images_below, images_in
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
    return replace(
        source,
        kind="folder of images",
        totals={split: len(images) for split, images in files.items()},
        left_out=count_unused(path, [file for images in files.values() for file in images]),
    )


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
    """Return the image files of each split, and a source with their labels."""
    name = path.resolve().name
    if not request.labels:
        files = {split: images_below(root) for split, root in roots.items()}
        _require_all(files, roots)
        return files, _to_source(name, files, {}, request)
    # Class numbers count over all splits together, because a split may lack a class.
    names = sorted({folder.name for root in roots.values() for folder in folders_in(root) if images_in(folder)})
    has_loose_images = any(images_in(root) for root in roots.values())
    if not names or (len(names) == 1 and has_loose_images):  # a single folder (thumbnails, ...) is not a class then
        return _find_flat(name, roots, request)
    return _find_classes(name, roots, names, request)


def _find_classes(name: str, roots: Roots, names: list[str], request: Request) -> tuple[Files, Source]:
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
    source = _to_source(name, files, {split: [label for _, label in found] for split, found in pairs.items()}, request)
    return files, replace(source, class_names=tuple(names), names_from=NamesFrom.FOLDERS, labels_from="folder names")


def _find_flat(name: str, roots: Roots, request: Request) -> tuple[Files, Source]:
    """Return the files of one place; labels, if any, are at the ends of their names."""
    files = {split: images_in(root) for split, root in roots.items()}
    _require_all(files, roots)
    unlabelled = _to_source(name, files, {}, request)
    endings = {split: _number_endings(images) for split, images in files.items()}
    numbers = {split: texts for split, texts in endings.items() if texts}
    if not numbers:
        return files, replace(unlabelled, notes=_unread_tables(roots))
    example = next(files[split][0] for split in numbers).name
    reason = _reason_against_labels(list(numbers.values()), request.num_classes)
    if reason:
        note = f"no labels: the numbers at the ends of the file names ({example}) are not used as classes: {reason}"
        return files, replace(unlabelled, notes=(note,))
    labels = {split: [int(text) for text in texts] for split, texts in numbers.items()}
    note = f"labels were read off the ends of the file names ({example}). Fix if they are not classes: {NO_LABELS}"
    return files, replace(_to_source(name, files, labels, request), notes=(note,), labels_from="ends of file names")


def _to_source(name: str, files: Files, labels: Mapping[str, list[int]], request: Request) -> Source:
    """Return a source of image files.

    Args:
        name: Name of the data set.
        files: Images by split.
        labels: Their labels by split; a split without labels is left out.
        request: The requested samples.
    """
    splits = {}
    for split, images in files.items():
        y = torch.tensor(labels[split], dtype=torch.int64) if split in labels else None
        splits[split] = Split(torch.arange(len(images)), y)

    def decode(split: str, rows: Tensor) -> tuple[Tensor, Counter[str]]:
        chosen = [files[split][row] for row in rows.tolist()]
        return CODECS[Modality.IMAGE].decode(((str(file), file) for file in chosen), len(chosen), request.image_spec)

    return Source(name, splits, decode)


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
