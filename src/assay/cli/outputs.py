"""Targets of output. Commands check them before they compute, and write them whole afterwards."""

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
    """Check that a folder can be written to or created.

    Args:
        path: The folder.
        option: The option with this value, for the message.

    Returns:
        ``path``.

    Raises:
        UnusableInput: It cannot.
    """
    if path.exists() and not path.is_dir():
        raise UnusableInput(f"{option} {path}: expected a folder, got a file. Fix: choose another path.")
    _try_writing(next(parent for parent in (path, *path.absolute().parents) if parent.exists()), path, option)
    return path


def check_file(path: Path, option: str) -> Path:
    """Check that a file can be written, in an existing folder.

    Args:
        path: The file.
        option: The option with this value, for the message.

    Returns:
        ``path``.

    Raises:
        UnusableInput: It cannot.
    """
    if path.is_dir():
        raise UnusableInput(f"{option} {path}: expected a file, got a folder. Fix: give the name of a file in it.")
    if not path.absolute().parent.is_dir():
        raise UnusableInput(
            f"{option} {path}: expected an existing folder {path.absolute().parent}, got none. Fix: create it."
        )
    if not path.exists() or path.is_file():  # neither a pipe nor a device
        _try_writing(path.absolute().parent, path, option)
    return path


@contextmanager
def json_output(target: str | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Redirect standard output to standard error, and yield a function that writes the JSON of a command.

    Args:
        target: Value of ``--json``: ``-`` for standard output, a file, or None for no JSON.

    Raises:
        UnusableInput: The file cannot be written.
    """
    stream = sys.stdout
    if target == STDOUT and stream is None:
        raise UnusableInput("--json -: expected an open standard output, got a closed one. Fix: give a file.")
    path = None if target in (None, STDOUT) else check_file(Path(str(target)), "--json")

    def write_json(document: dict[str, Any]) -> None:
        from assay.io.atomic import write_atomically
        from assay.report.json_document import dumps

        if path is not None:
            write_atomically(path, dumps(document))
        elif target == STDOUT:
            stream.write(dumps(document))
            stream.flush()

    with redirect_stdout(sys.stderr):  # so that prints of third-party code do not mix with the JSON
        yield write_json


def _try_writing(folder: Path, target: Path, option: str) -> None:
    if not folder.is_dir():
        raise UnusableInput(f"{option} {target}: expected a folder {folder}, got a file. Fix: choose another path.")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UnusableInput(
            f"{option} {target}: cannot write there ({error.strerror or error}). Fix: choose another path."
        ) from None
