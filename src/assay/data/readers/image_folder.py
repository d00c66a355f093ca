"""Folders of pictures: one folder a class, also below train, test, ...; or flat, labels at the end of the names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.data.images import decode_all
from assay.data.request import KNOWN_SPLITS, NO_LABELS, SPLIT_NAMES, Request, Source, split_name

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
LABELLED = re.compile(r".*_(\d{1,6})")
DENSE = 2
"""Numbers that are all different, at least one in so many of them there: they count the pictures, not the classes."""

Roots = Mapping[str, Path]


def read_folder(path: Path, request: Request) -> Source:
    """Reads a folder of pictures; raises ``UnusableInput`` where there are none."""
    parts = {
        split_name(folder.name): folder
        for folder in _folders(path)
        if folder.name.lower() in {*KNOWN_SPLITS, *SPLIT_NAMES}
    }
    roots: Roots = parts or {"all": path}
    name = path.resolve().name
    if not request.labels:
        return _unlabelled(name, {split: pictures_below(root) for split, root in roots.items()}, roots, request)
    # Classes are numbered over all splits together: a class may be missing in one of them.
    names = sorted({folder.name for root in roots.values() for folder in _folders(root) if _pictures(folder)})
    beside = any(_pictures(root) for root in roots.values())
    if not names or (len(names) == 1 and beside):  # one folder beside pictures (thumbnails, ...) is no class
        return _flat(name, roots, request)
    return _classes(name, roots, names, request)


def _classes(name: str, roots: Roots, names: list[str], request: Request) -> Source:
    """One folder a class."""
    by_folder = not all(text.isdecimal() for text in names)  # else the folders' names are the labels themselves
    numbers = {text: index if by_folder else int(text) for index, text in enumerate(names)}
    splits = {}
    for split, root in roots.items():
        files = [(file, numbers[folder.name]) for folder in _folders(root) for file in _pictures(folder)]
        splits[split] = _split(
            [file for file, _ in files], [label for _, label in files], request.of_split(split, list(roots))
        )
    return Source(name, splits, tuple(names) if by_folder else None, named_by_folder=by_folder)


def _flat(name: str, roots: Roots, request: Request) -> Source:
    """All pictures in one place; labels, if any, are at the ends of their names."""
    files = {split: _pictures(root) for split, root in roots.items()}
    endings = {split: _endings(found) for split, found in files.items()}
    numbers = {split: texts for split, texts in endings.items() if texts}
    if not numbers:
        return _unlabelled(name, files, roots, request)
    example = next(files[split][0] for split in numbers).name
    why = _why_no_labels(list(numbers.values()), request.num_classes)
    if why:
        note = f"no labels: the numbers at the ends of the file names ({example}) are not taken for classes, as {why}"
        return _unlabelled(name, files, roots, request, notes=(note,))
    splits = {}
    for split, found in files.items():
        _needs_pictures(found, roots[split])
        labels = [int(text) for text in numbers[split]] if split in numbers else None
        splits[split] = _split(found, labels, request.of_split(split, list(roots)))
    note = f"labels were read off the ends of the file names ({example}); {NO_LABELS} if those numbers are no classes"
    return Source(name, splits, notes=(note,))


def _unlabelled(
    name: str, files: Mapping[str, list[Path]], roots: Roots, request: Request, *, notes: tuple[str, ...] = ()
) -> Source:
    splits = {}
    for split, found in files.items():
        _needs_pictures(found, roots[split])
        splits[split] = _split(found, None, request.of_split(split, list(files)))
    return Source(name, splits, notes=notes)


def _endings(files: list[Path]) -> list[str]:
    """The number at the end of each file's name; empty where one has none."""
    matches = [LABELLED.fullmatch(file.stem) for file in files]
    return [match[1] for match in matches if match] if all(matches) else []


def _why_no_labels(numbers: Sequence[Sequence[str]], num_classes: int | None) -> str:
    """Why the numbers at the ends of file names, split by split, are no labels; empty where they may well be.

    Cameras number their pictures too: IMG_1000.png is no picture of class 1000.
    """
    values = [int(text) for part in numbers for text in part]
    largest, different = max(values), set(values)
    if num_classes is not None and largest >= num_classes:
        return f"they go up to {largest} and the model has {num_classes} classes"
    if len(different) == 1:
        return "they are all the same"
    if any(len(set(map(int, part))) < len(part) for part in numbers):
        return ""  # some are there twice, as labels are
    padded = num_classes is not None and max(len(text) for part in numbers for text in part) > len(str(num_classes - 1))
    if padded or largest - min(different) + 1 <= DENSE * len(different):
        return "they count the pictures"
    return ""


def _needs_pictures(files: list[Path], root: Path) -> None:
    if not files:
        raise UnusableInput(
            f"{root}: expected pictures ({', '.join(sorted(SUFFIXES))}) or one folder a class, none found"
        )


def _split(files: list[Path], labels: list[int] | None, request: Request) -> Split:
    y = None if labels is None else torch.tensor(labels, dtype=torch.int64)
    chosen = request.choose(len(files), y)
    picked = [files[index] for index in chosen.tolist()]
    x = decode_all(((str(file), file) for file in picked), len(picked), request.image_spec)
    return Split(x, None if y is None else y[chosen])


def pictures_below(folder: Path) -> list[Path]:
    """The pictures in a folder and in all folders below it."""
    return [*_pictures(folder), *(file for below in _folders(folder) for file in pictures_below(below))]


def _folders(path: Path) -> list[Path]:
    """The folders in a folder, without those of tools (.ipynb_checkpoints) and what macOS puts into archives."""
    found = (entry for entry in path.iterdir() if entry.is_dir() and entry.name != "__MACOSX" and not _leads_up(entry))
    return sorted(entry for entry in found if not entry.name.startswith("."))


def _leads_up(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in: its pictures would count again and again."""
    return folder.is_symlink() and folder.absolute().is_relative_to(folder.resolve())


def _pictures(path: Path) -> list[Path]:
    """The pictures in a folder, without hidden files: macOS writes a ._x.png, no picture, beside each x.png."""
    found = (entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES and entry.is_file())
    return sorted(entry for entry in found if not entry.name.startswith("."))
