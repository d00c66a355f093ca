"""Folders of pictures: one folder a class, also below train, test, ...; or flat, labels at the end of the names."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from assay.data.pictures import decode_all
from assay.data.source import KNOWN_SPLITS, SPLIT_NAMES, Request, Source, split_name
from assay.errors import UnusableInput
from assay.task import Split

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
LABELLED = re.compile(r".*_(\d{1,6})")


def read_folder(path: Path, request: Request) -> Source:
    """Reads a folder of pictures; raises ``UnusableInput`` where there are none."""
    below = _folders(path)
    parts = {
        split_name(folder.name): folder for folder in below if folder.name.lower() in {*KNOWN_SPLITS, *SPLIT_NAMES}
    }
    roots = parts or {"all": path}
    # Classes are numbered over all splits together: a class may be missing in one of them.
    names = sorted({folder.name for root in roots.values() for folder in _folders(root) if _pictures(folder)})
    name = path.resolve().name
    if not names:
        return _flat(name, roots, request)
    if all(text.isdecimal() for text in names):  # the folders' names are the labels themselves
        numbers = {text: int(text) for text in names}
    else:
        numbers = {text: index for index, text in enumerate(names)}
    splits = {}
    for split, root in roots.items():
        files = [(file, numbers[folder.name]) for folder in _folders(root) for file in _pictures(folder)]
        splits[split] = _split(
            [file for file, _ in files], [label for _, label in files], request.of_split(split, list(roots))
        )
    by_folder = not all(text.isdecimal() for text in names)
    return Source(name, splits, tuple(names) if by_folder else None, named_by_folder=by_folder)


def _flat(name: str, roots: dict[str, Path], request: Request) -> Source:
    splits = {}
    for split, root in roots.items():
        files = _pictures(root)
        if not files:
            raise UnusableInput(
                f"{root}: expected pictures ({', '.join(sorted(SUFFIXES))}) or one folder a class, none found"
            )
        matches = [LABELLED.fullmatch(file.stem) for file in files]
        labels = [int(match[1]) for match in matches if match]
        splits[split] = _split(
            files, labels if len(labels) == len(files) else None, request.of_split(split, list(roots))
        )
    return Source(name, splits)


def _split(files: list[Path], labels: list[int] | None, request: Request) -> Split:
    y = None if labels is None else torch.tensor(labels, dtype=torch.int64)
    chosen = request.choose(len(files), y)
    picked = [files[index] for index in chosen.tolist()]
    x = decode_all(((str(file), file) for file in picked), len(picked), request.spec)
    return Split(x, None if y is None else y[chosen])


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _pictures(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES and entry.is_file())
