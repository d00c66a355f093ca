"""Image files in folders, and counts of the other files there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"
}  # fmt: skip

# Largest number of suffixes in a message.
SHOWN_SUFFIXES = 6


def images_below(folder: Path) -> list[Path]:
    """Return the images in a folder and in all folders below it."""
    return [*images_in(folder), *(file for below in folders_in(folder) for file in images_below(below))]


def folders_in(path: Path) -> list[Path]:
    """Return the folders in a folder, without those of tools (.ipynb_checkpoints) and macOS archives."""
    folders = (entry for entry in path.iterdir() if entry.is_dir() and entry.name != "__MACOSX")
    return sorted(entry for entry in folders if not entry.name.startswith(".") and not _links_upwards(entry))


def _links_upwards(folder: Path) -> bool:
    """Return True for a link to a folder above it: the same images would repeat without end."""
    return folder.is_symlink() and folder.absolute().is_relative_to(folder.resolve())


def images_in(path: Path) -> list[Path]:
    """Return the images in a folder, without hidden files: macOS writes a ._x.png next to each x.png."""
    images = (entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES and entry.is_file())
    return sorted(entry for entry in images if not entry.name.startswith("."))


def count_unused(folder: Path, used: Collection[Path]) -> Counter[str]:
    """Count the files below a folder that are not read, by kind.

    Args:
        folder: The folder.
        used: The image files that are samples.
    """
    kinds, suffixes, kept = Counter[str](), Counter[str](), {os.fspath(path) for path in used}
    for place, folders, files in os.walk(folder):
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in Path(place).relative_to(folder).parts)
        folders.sort()
        for name in files:
            path, suffix = os.path.join(place, name), os.path.splitext(name)[1].lower()
            if path in kept:
                continue
            if hidden or name.startswith("."):
                kinds["hidden files"] += 1
            elif not os.path.isfile(path):
                kinds["pipes, devices and broken links"] += 1
            elif suffix in SUFFIXES:
                kinds["images in other places"] += 1
            else:
                suffixes[suffix or "no suffix"] += 1
    if suffixes:
        shown = ", ".join(suffix for suffix, _ in suffixes.most_common(SHOWN_SUFFIXES))
        kinds[f"files of other kinds ({shown}{', ...' if len(suffixes) > SHOWN_SUFFIXES else ''})"] += suffixes.total()
    return kinds
