"""Where output goes: looked at before minutes of computing, written whole afterwards."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from assay.core.errors import UnusableInput

STDOUT = "-"


def check_folder(path: Path, option: str = "--out") -> Path:
    """``path``, which must be a folder that can be written to, or one that can be made."""
    if path.exists() and not path.is_dir():
        raise UnusableInput(f"{option} {path}: expected a folder, came a file: choose another place")
    _try_writing(next(place for place in (path, *path.absolute().parents) if place.exists()), path, option)
    return path


def check_file(path: Path, option: str) -> Path:
    """``path``, which must be a file that can be written, in a folder that is there."""
    if path.is_dir():
        raise UnusableInput(f"{option} {path}: expected a file, came a folder: give a file name in it")
    if not path.absolute().parent.is_dir():
        raise UnusableInput(f"{option} {path}: there is no folder {path.absolute().parent}: make it first")
    if not path.exists() or path.is_file():  # not a pipe or a device
        _try_writing(path.absolute().parent, path, option)
    return path


@contextmanager
def answering(target: str | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields what writes the answer as ``--json`` says: to standard output (``-``), a file, or nowhere (None).

    Whatever else is printed meanwhile, by other people's code too, goes to standard error.
    """
    stream = sys.stdout
    path = None if target in (None, STDOUT) else check_file(Path(str(target)), "--json")

    def write(document: dict[str, Any]) -> None:
        from assay.io.atomic import write_atomically
        from assay.report import dumps

        if path is not None:
            write_atomically(path, dumps(document))
        elif target == STDOUT:
            stream.write(dumps(document))
            stream.flush()

    with redirect_stdout(sys.stderr):
        yield write


def _try_writing(folder: Path, wanted: Path, option: str) -> None:
    if not folder.is_dir():
        raise UnusableInput(f"{option} {wanted}: {folder} is no folder: choose another place")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UnusableInput(
            f"{option} {wanted}: cannot write there: {error.strerror or error}: choose another place"
        ) from None
