"""Reading of files: digests, bounded JSON, and a check of paths inside a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from assay.core.errors import UnusableInput

PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".h5", ".hdf5", ".keras", ".npy"}
TORCH_FILES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"}
MAX_JSON_BYTES = 16 * 2**20

TO_CONVERT = (
    "convert it on a machine that trusts it, with "
    "safetensors.torch.save_file(torch.load('FILE', weights_only=True, map_location='cpu'), 'model.safetensors')"
)


def refuse_pickle(path: Path) -> None:
    """Raise UnusableInput for a file type with code in it, as pickles have. The function does not open the file."""
    if path.suffix.lower() in PICKLES:
        fix = "export it to .safetensors or .onnx on a machine that trusts it"
        if path.suffix.lower() in TORCH_FILES:
            fix = TO_CONVERT.replace("FILE", path.name)
        raise UnusableInput(f"{path}: {path.suffix} files can run code when loaded and are never opened. Fix: {fix}.")


def sha256_of(paths: Iterable[Path]) -> str:
    """Return the sha256 over the bytes of the files, one after the other."""
    sha = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                sha.update(chunk)
    return sha.hexdigest()


def inside(folder: Path, name: str) -> Path:
    """Return the path of a plain file inside a folder, all links followed.

    The hub's local cache keeps its files in a folder ``blobs``, a sibling of ``snapshots``. Links into it are allowed.

    Args:
        folder: The folder.
        name: Name of the file, relative to the folder.

    Raises:
        UnusableInput: The file is missing, or lies outside the folder.
    """
    path = folder / name
    home = folder.resolve()
    roots = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    try:
        target = path.resolve()
        stays = any(target.is_relative_to(root) for root in roots)
    except (OSError, RuntimeError, ValueError):  # loops of links, NUL in the name
        stays = False
    if not stays:
        raise UnusableInput(f"{folder}: {name!r} leads out of the model's folder. Fix: move all its files inside.")
    if not path.is_file():
        raise UnusableInput(f"{folder}: expected the file {name!r}, which is missing")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        UnusableInput: The file is larger than 16 MiB, is not valid JSON, or holds no object.
    """
    content = any_json(path)
    if not isinstance(content, dict):
        raise UnusableInput(f"{path}: expected a JSON object, got a {type(content).__name__}")
    return content


def any_json(path: Path) -> Any:
    """Return the JSON value, of any type, in a file of at most 16 MiB."""
    refuse_long_json(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnusableInput(f"{path}: is not valid JSON ({error})") from None


def refuse_long_json(path: Path) -> None:
    """Raise UnusableInput for a JSON file larger than 16 MiB. The function does not open the file."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise UnusableInput(f"{path}: expected at most {MAX_JSON_BYTES} bytes of JSON, got {path.stat().st_size}")
