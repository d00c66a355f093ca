"""Many models: a list, a folder or a pattern -> their files."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from assay.core.errors import UnusableInput, first_line
from assay.io.files import PICKLES, sha256_of
from assay.io.hub_ids import hub_id

SUFFIXES = frozenset({".safetensors", ".onnx"})
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"  # of a Hugging Face folder
REFUSED = PICKLES - {".npy"}  # an array beside a model is data
MOST_MODELS = 100_000
MOST_LIST_BYTES = 2**24


def models_of(given: Sequence[str], list_file: Path | None = None) -> list[str]:
    """Paths and hub ids, each once, in the order given; folders and patterns are opened up.

    In a folder and below it every Hugging Face folder counts, and every other .safetensors and .onnx file; pickles too,
    to be refused by name. Links that lead out of the folder and hidden folders are left out. ``list_file``: one of the
    above a line; empty lines and those that start with # say nothing. Raises UnusableInput where there is no model, and
    where a folder cannot be read.
    """
    found: dict[str, None] = {}
    for text in given:
        opened = _opened_safely(text)
        if not opened:
            raise UnusableInput(
                f"{text or 'an empty name'}: no model there; expected a .safetensors or .onnx file, a Hugging Face "
                "folder, a folder of those, or a hub id"
            )
        found.update(dict.fromkeys(opened))
    for text in _lines(list_file) if list_file is not None else ():
        found.update(dict.fromkeys(_opened_safely(text) or [text]))  # of a long list a bad line is a row, no end
    if not found:
        raise UnusableInput("expected models: paths, folders, patterns, hub ids, or a file of them with --list")
    if len(found) > MOST_MODELS:
        raise UnusableInput(f"{len(found):,} models are too many for one run: give at most {MOST_MODELS:,} at a time")
    return list(found)


def digest_of(model: str) -> str:
    """sha256 over all that a model at a path may be read from; of a hub id, which is not fetched for it, the id itself.

    That is more than ``Artifact.digest`` is made of: the names of files and the notes on preprocessing beside them
    count too, and so does every file of a folder. Raises UnusableInput where it cannot be read.
    """
    path = Path(model)
    if not path.exists() and (repository := hub_id(model, local_suffixes=SUFFIXES)) is not None:
        return f"hub:{repository}"
    try:
        return _digest(path)
    except OSError as error:
        raise UnusableInput(f"cannot read {error.filename or model}: {error.strerror or error}") from None


def _digest(path: Path) -> str:
    sha = hashlib.sha256()
    root = path if path.is_dir() else path.parent
    for part in sorted(_parts(path)):
        name = path.suffix.lower() if part == path else str(part.relative_to(root))
        sha.update(repr((name, part.stat().st_size, sha256_of([part]))).encode())
    return sha.hexdigest()


def _parts(path: Path) -> Iterator[Path]:
    """The files that the model at ``path`` may be read from."""
    if path.is_dir():
        yield from (part for part in path.rglob("*") if part.is_file())
        return
    yield path
    yield from (part for name in (CONFIG, PREPROCESSOR) if (part := path.with_name(name)).is_file())
    if path.suffix.lower() == ".onnx":
        from assay.formats.onnx.load import external_files

        yield from external_files(path)


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MOST_LIST_BYTES:
            raise UnusableInput(f"--list {path}: expected a text file of at most {MOST_LIST_BYTES:,} bytes")
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        raise UnusableInput(f"--list {path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UnusableInput(f"--list {path}: expected text in UTF-8, a model a line") from None
    return [line for line in lines if line and not line.startswith("#")]


def _opened_safely(text: str) -> list[str]:
    try:
        return list(_opened(text)) if text else []
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
        raise UnusableInput(f"{text[:200]}: cannot be read: {first_line(error)}") from None


def _opened(text: str) -> Iterator[str]:
    """The models that ``text`` stands for."""
    path = Path(text)
    if path.exists():
        yield from _in(path)
    elif hub_id(text, local_suffixes=SUFFIXES) is not None:
        yield text
    else:
        for match in map(Path, sorted(glob.glob(text, recursive=True))):
            yield from _in(match) if match.exists() else ()


def _in(path: Path) -> Iterator[str]:
    return map(str, _below(path)) if path.is_dir() else iter([os.path.normpath(path)])


def _below(folder: Path) -> Iterator[Path]:
    root = folder.resolve()
    for here, folders, files in os.walk(folder, onerror=_raise):
        place = Path(here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if CONFIG in files:
            folders.clear()
            yield place
            continue
        for name in sorted(files):
            path = place / name
            if path.suffix.lower() in {*SUFFIXES, *REFUSED} and path.resolve().is_relative_to(root):
                yield path  # a pickle is refused when its turn comes, in a row that says why


def _raise(error: OSError) -> None:
    raise error
