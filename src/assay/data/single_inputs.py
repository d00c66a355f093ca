"""Single inputs that somebody has doubts about: picture files, folders of them, files of texts, under their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from assay.core.errors import UnusableInput
from assay.core.model import InputSpec, TextSpec
from assay.data.images import decode_all
from assay.data.readers.image_folder import SUFFIXES, pictures_below
from assay.data.tokenize import encoded

MOST = 100_000
"""InputSpec at once."""


@dataclass(frozen=True)
class Input:
    """One input under its name: a picture file, or a text."""

    name: str
    content: Path | str


def find_inputs(paths: Sequence[Path], *, texts: bool) -> list[Input]:
    """The picture files among ``paths`` and below them; ``texts``: the lines of files of texts that are not blank.

    Raises UnusableInput where there are none or too many, and for what cannot be read.
    """
    found: list[Input] = []
    for path in paths:
        if not path.exists():
            raise UnusableInput(f"{path}: no such file or folder")
        found += _lines(path) if texts else _pictures(path)
    if not 1 <= len(found) <= MOST:
        kind = "texts, one a line" if texts else f"pictures ({', '.join(sorted(SUFFIXES))})"
        raise UnusableInput(f"expected from 1 to {MOST:,} {kind}; came {len(found):,}")
    return found


def read_inputs(inputs: Sequence[Input], spec: InputSpec) -> tuple[Tensor, int]:
    """(N, ...) as ``spec`` says, and how many of the texts are longer than that and were cut."""
    if isinstance(spec, TextSpec):
        return encoded([str(each.content) for each in inputs], spec)
    files = [(each.name, Path(each.content)) for each in inputs]
    return decode_all(files, len(files), spec), 0


def _pictures(path: Path) -> Iterator[Input]:
    for file in pictures_below(path) if path.is_dir() else [path]:
        yield Input(str(file), file)


def _lines(path: Path) -> Iterator[Input]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UnusableInput(f"{path}: expected a file of texts in UTF-8, one a line; came something else") from None
    except OSError as error:
        raise UnusableInput(f"cannot read {path}: {error.strerror or error}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield Input(f"{path}:{number}", line)
