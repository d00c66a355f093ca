"""Models of a batch: paths, folders, patterns and lists become single models."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from assay.core.errors import UnusableInput, first_line
from assay.formats.siblings import sibling_files
from assay.io.files import PICKLES, check_plain_file, is_inside, read_text, sha256_of
from assay.io.hub_ids import hub_id
from assay.kinds import look

SUFFIXES = frozenset({".safetensors", ".onnx"})
CONFIGS = ("config.json", "adapter_config.json", "model_index.json")  # one of them makes a folder one model
COLLECTIONS = ("several-models", "no-weights", "unknown-config")  # kinds of folders whose files are looked at
REFUSED = PICKLES - {".npy"}  # pickled models; an array next to a model is data
MAX_MODELS = 100_000  # in one run
MAX_LIST_BYTES = 2**24  # of a list file


def find_models(given: Sequence[str], list_file: Path | None = None) -> list[str]:
    """Return paths and hub ids of models, each once, in the order given.

    A folder stands for every model folder (Hugging Face, optimum, adapter) and every other .safetensors and .onnx file
    below it. Pickles count too: they are refused by name later. Links to places outside of the folder and hidden
    folders are left out; links into the hub's cache count.

    Args:
        given: models, folders of models, and glob patterns.
        list_file: a text file with one of the above per line. Empty lines and lines with a leading # are comments.

    Raises:
        UnusableInput: an argument names no model, or a folder cannot be read.
    """
    found: dict[str, None] = {}
    for text in given:
        models = _expand(text)
        if not models:
            raise UnusableInput(
                f"{text or 'an empty name'}: no model there; expected a .safetensors or .onnx file, a Hugging Face "
                "folder, a folder of those, or a hub id"
            )
        found.update(dict.fromkeys(models))
    lines = [] if list_file is None else read_text(list_file, most=MAX_LIST_BYTES).splitlines()
    for text in (line.strip() for line in lines if line.strip() and not line.strip().startswith("#")):
        found.update(dict.fromkeys(_expand(text) or [text]))  # a bad line becomes a failed row of the page
    if not found:
        raise UnusableInput("expected models: paths, folders, patterns, hub ids, or a file with a list of them")
    if len(found) > MAX_MODELS:
        raise UnusableInput(f"{len(found):,} models are too many for one run: expected at most {MAX_MODELS:,}")
    return list(found)


def model_digest(model: str) -> str:
    """Return the sha256 of all files of a model; of a hub id, the id itself.

    The digest covers more than ``Artifact.digest``: file names, preprocessing settings next to the file, and every
    file of a folder. Raises UnusableInput if a file cannot be read.
    """
    path = Path(model)
    if not path.exists() and (repository := hub_id(model, local_suffixes=SUFFIXES)) is not None:
        return f"hub:{repository}"
    if path.exists() and not path.is_dir():
        check_plain_file(path)
    root = path if path.is_dir() else path.parent
    sha = hashlib.sha256()
    try:
        for part in sorted(_files_of_model(path)):
            name = path.suffix.lower() if part == path else os.path.relpath(part, root)
            sha.update(repr((name, part.stat().st_size, sha256_of([part]))).encode())
    except OSError as error:
        raise UnusableInput(f"cannot read {error.filename or model}: {error.strerror or error}") from None
    except ValueError as error:  # NUL in the name
        raise UnusableInput(f"cannot read {model!r}: {error}") from None
    return sha.hexdigest()


def _files_of_model(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (part for part in path.rglob("*") if part.is_file())
        return
    yield path
    yield from sibling_files(path)
    if path.suffix.lower() == ".onnx":
        from assay.formats.onnx.read import external_files

        yield from external_files(path)


def _expand(text: str) -> list[str]:
    """Return the models of a path, a pattern or a hub id; none if there are none."""
    path = Path(text)
    try:
        if not text:
            return []
        if path.exists():
            return list(_models_at(path))
        if hub_id(text, local_suffixes=SUFFIXES) is not None:
            return [text]
        matches = map(Path, sorted(glob.glob(text, recursive=True)))
        return [model for match in matches if match.exists() for model in _models_at(match)]
    except (OSError, RuntimeError, ValueError) as error:  # circular links; NUL in the name
        raise UnusableInput(f"{text[:200]}: cannot be read: {first_line(error)}") from None


def _models_at(path: Path) -> Iterator[str]:
    return map(str, _models_below(path)) if path.is_dir() else iter([os.path.normpath(path)])


def _models_below(folder: Path) -> Iterator[Path]:
    def stop(error: OSError) -> None:
        raise error

    for directory, folders, files in os.walk(folder, onerror=stop):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if _is_model(Path(directory), files):
            folders.clear()
            yield Path(directory)
            continue
        for name in sorted(files):
            path = Path(directory) / name
            if path.suffix.lower() not in {*SUFFIXES, *REFUSED}:
                continue
            if is_inside(folder, path) or is_inside(Path(directory), path):  # the latter: links of the hub's cache
                yield path


def _is_model(directory: Path, files: Sequence[str]) -> bool:
    """Return whether a folder is one model: it has a config, and is not a collection of models.

    Args:
        directory: The folder.
        files: Names of its files.
    """
    if not any(name in files for name in CONFIGS):
        return False
    try:
        seen = look(directory)
    except UnusableInput:  # the audit reports the reason
        return True
    return seen is None or seen.kind.key not in COLLECTIONS
