"""Image files in folders."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


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
