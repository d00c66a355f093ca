"""Many models: a list, a folder or a pattern -> their files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from assay.errors import UnusableInput
from assay.formats.files import sha256_of
from assay.formats.hub import hub_id

SUFFIXES = frozenset({".safetensors", ".onnx"})
CONFIG = "config.json"  # of a Hugging Face folder
MOST_MODELS = 100_000
MOST_LIST_BYTES = 2**24


def models_of(given: Sequence[str], list_file: Path | None = None) -> list[str]:
    """Paths and hub ids, each once, in the order given; folders and patterns are opened up.

    A folder that is a model itself stays one; below any other, every Hugging Face folder and every .safetensors and
    .onnx file counts. Links that lead out of the folder, and hidden folders, are left out. ``list_file``: one of the
    above a line; empty lines and those that start with # say nothing. Raises UnusableInput where there is no model.
    """
    wanted = [*given, *(_lines(list_file) if list_file is not None else ())]
    found: dict[str, None] = {}
    for text in wanted:
        before = len(found)
        found.update(dict.fromkeys(_opened(text)))
        if len(found) == before and not any(True for _ in _opened(text)):
            raise UnusableInput(
                f"{text}: no model there; expected a .safetensors or .onnx file, a Hugging Face folder or a hub id"
            )
    if not found:
        raise UnusableInput("expected models: paths, folders, patterns, hub ids, or a file of them with --list")
    if len(found) > MOST_MODELS:
        raise UnusableInput(f"{len(found):,} models are too many for one run: give at most {MOST_MODELS:,} at a time")
    return list(found)


def digest_of(model: str) -> str:
    """sha256 over what the model at a path is made of; of a hub id, which is not fetched for it, the id itself.

    Raises UnusableInput where it cannot be read.
    """
    path = Path(model)
    if not path.exists() and hub_id(model, local_suffixes=SUFFIXES) is not None:
        return f"hub:{model}"
    try:
        return sha256_of([path] if path.is_file() else sorted(_parts(path)))
    except OSError as error:
        raise UnusableInput(f"cannot read {error.filename or model}: {error.strerror or error}") from None


def _parts(folder: Path) -> Iterator[Path]:
    """The files of a model's folder that say what it computes."""
    for path in folder.iterdir():
        if path.is_file() and path.suffix.lower() in {*SUFFIXES, ".json"}:
            yield path


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MOST_LIST_BYTES:
            raise UnusableInput(f"--list {path}: expected a text file of at most {MOST_LIST_BYTES:,} bytes")
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise UnusableInput(f"--list {path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UnusableInput(f"--list {path}: expected text in UTF-8, a model a line") from None
    return [line for line in lines if line and not line.startswith("#")]


def _opened(text: str) -> Iterator[str]:
    """The models that ``text`` stands for."""
    path = Path(text)
    if path.is_dir():
        yield from [text] if _is_model(path) else map(str, _below(path))
    elif path.exists() or hub_id(text, local_suffixes=SUFFIXES) is not None:
        yield text
    else:
        for match in sorted(glob.glob(text, recursive=True)):
            yield from _opened(match)


def _is_model(folder: Path) -> bool:
    files = [path for path in folder.iterdir() if path.is_file()]
    weights = [path for path in files if path.suffix.lower() in SUFFIXES]
    return any(path.name == CONFIG for path in files) or (
        len(weights) == 1 and not any(path.is_dir() for path in folder.iterdir())
    )


def _below(folder: Path) -> Iterator[Path]:
    root = folder.resolve()
    for here, folders, files in os.walk(folder):
        place = Path(here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if CONFIG in files:
            folders.clear()
            yield place
            continue
        for name in sorted(files):
            path = place / name
            if path.suffix.lower() in SUFFIXES and path.resolve().is_relative_to(root):
                yield path
