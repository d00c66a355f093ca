"""Single inputs that somebody has doubts about: picture files, folders of them, files of texts, under their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from assay.artifact import ImageSpec, Inputs, TextSpec
from assay.data.folder import SUFFIXES, pictures_below
from assay.data.pictures import decode_all
from assay.data.text import encoded
from assay.errors import UnusableInput

MOST = 100_000
"""Inputs at once."""


def read_inputs(paths: Sequence[Path], spec: Inputs) -> tuple[list[str], Tensor]:
    """A name for each input, and all of them (N, ...) as ``spec`` says.

    Of a model of pictures files and folders of them, with what is below; of one of texts files with a text a line.
    Raises UnusableInput for anything else, and where there are none.
    """
    for path in paths:
        if not path.exists():
            raise UnusableInput(f"{path}: no such file or folder")
    try:
        names, x = _texts(paths, spec) if isinstance(spec, TextSpec) else _pictures(paths, spec)
    except OSError as error:
        raise UnusableInput(f"cannot read {error.filename}: {error.strerror or error}") from None
    return names, x


def _pictures(paths: Sequence[Path], spec: ImageSpec) -> tuple[list[str], Tensor]:
    files = [file for path in paths for file in (pictures_below(path) if path.is_dir() else [path])]
    _count(files, f"pictures ({', '.join(sorted(SUFFIXES))})")
    names = [str(file) for file in files]
    return names, decode_all(zip(names, files, strict=True), len(files), spec)


def _texts(paths: Sequence[Path], spec: TextSpec) -> tuple[list[str], Tensor]:
    named = [(f"{path}:{number}", line) for path in paths for number, line in enumerate(_lines(path), start=1)]
    named = [(name, line) for name, line in named if line.strip()]
    _count(named, "texts, one a line")
    return [name for name, _ in named], encoded([line for _, line in named], spec)[0]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UnusableInput(f"{path}: expected a file of texts in UTF-8, one a line; came something else") from None


def _count(found: Sequence[object], kind: str) -> None:
    if not 1 <= len(found) <= MOST:
        raise UnusableInput(f"expected from 1 to {MOST:,} {kind}; came {len(found):,}")
