"""What the formats share in dealing with files: digests, JSON, paths that stay in their folder, whole writes."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from assay.core.errors import UnusableInput

PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".h5", ".hdf5", ".keras", ".npy"}
TORCH_FILES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"}
MAX_JSON_BYTES = 16 * 2**20

TO_CONVERT = (
    "convert it where it is trusted: "
    "safetensors.torch.save_file(torch.load('FILE', weights_only=True, map_location='cpu'), 'model.safetensors')"
)


def refuse_pickle(path: Path) -> None:
    """Raises for file types that can run code when they are opened; the file is not opened."""
    if path.suffix.lower() in PICKLES:
        how = "export it to .safetensors or .onnx where it is trusted"
        if path.suffix.lower() in TORCH_FILES:
            how = TO_CONVERT.replace("FILE", path.name)
        raise UnusableInput(f"{path}: {path.suffix} files can run code when loaded and are never opened; {how}")


def sha256_of(paths: Iterable[Path]) -> str:
    """sha256 over the bytes of the files, one after the other."""
    sha = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                sha.update(chunk)
    return sha.hexdigest()


def inside(folder: Path, name: str) -> Path:
    """``folder / name``, which must exist, be a plain file and, all links followed, lie in ``folder``.

    The hub's local cache keeps the files themselves in a folder ``blobs`` beside ``snapshots``: links into it are fine.
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
        raise UnusableInput(f"{folder}: {name!r} leads out of the model's folder; all its files must lie inside")
    if not path.is_file():
        raise UnusableInput(f"{folder}: expected the file {name!r}, which is missing")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of at most 16 MiB."""
    content = any_json(path)
    if not isinstance(content, dict):
        raise UnusableInput(f"{path}: expected a JSON object, came a {type(content).__name__}")
    return content


def any_json(path: Path) -> Any:
    """Whatever the JSON in a file of at most 16 MiB is."""
    refuse_long_json(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnusableInput(f"{path}: is not valid JSON ({error})") from None


def refuse_long_json(path: Path) -> None:
    """Raises for a file of JSON that is larger than 16 MiB; it is not opened."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise UnusableInput(f"{path}: expected at most {MAX_JSON_BYTES} bytes of JSON, came {path.stat().st_size}")


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that it appears whole or not at all; the folder is made where it is missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UnusableInput(f"cannot write {path}: {error.strerror or error}; nothing was written") from None
