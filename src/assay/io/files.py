"""Reading of files: digests, bounded JSON, and a check of paths inside a folder."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from assay.core.errors import UnusableInput

PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".h5", ".hdf5", ".keras", ".npy"}
TORCH_FILES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"}
MAX_JSON_BYTES = 16 * 2**20
MAX_JSON_DEPTH = 100  # levels of lists and objects
MAX_DIGITS = 40  # of a whole number; tokenizers write 10^30 for "no limit"
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # escape of half a character
HEAD_BYTES = 1024  # at the start of a file, to recognize placeholders
LFS_STARTS = (b"version https://git-lfs", b"version http://git-media", b"version https://hawser")
LINK_TEXT = re.compile(rb"(\.\./)+[\w./-]{1,255}")
ANNEX = "/annex/objects/"

TO_CONVERT = (
    "convert it on a machine that trusts it: c = torch.load('FILE', weights_only=True, map_location='cpu'); "
    "safetensors.torch.save_file(c.get('state_dict', c), 'model.safetensors') "
    "(for weights under another key than 'state_dict': that key)"
)


def refuse_pickle(path: Path) -> None:
    """Raise UnusableInput for a file type with code in it, as pickles have. The function does not open the file."""
    if path.suffix.lower() in PICKLES:
        fix = "export it to .safetensors or .onnx on a machine that trusts it"
        if path.suffix.lower() in TORCH_FILES:
            fix = TO_CONVERT.replace("FILE", path.name)
        raise UnusableInput(f"{path}: {path.suffix} files can run code when loaded and are never opened. Fix: {fix}.")


def sha256_of(paths: Iterable[Path]) -> str:
    """Return the sha256 over the bytes of the files, one after the other; raise UnusableInput for a special file."""
    sha = hashlib.sha256()
    for path in paths:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe or a device would never end
            raise UnusableInput(
                f"{path}: expected a plain file, got {_special_kind(path.stat().st_mode)}. Fix: give a file."
            )
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                sha.update(chunk)
    return sha.hexdigest()


def check_plain_file(path: Path) -> None:
    """Raise UnusableInput for a file without content of its own: a pointer, a web page, an empty or special file.

    Git LFS, git-annex and Xet leave a short text in place of a file that was not downloaded. A failed download leaves a
    web page, an error message or nothing.
    """
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        link = os.readlink(path) if path.is_symlink() else ""
        if ANNEX in link:
            raise UnusableInput(
                f"{path}: this is a git-annex link to a missing file. Fix: run `git annex get`."
            ) from None
        found, fix = "none", "check the path, or download it again"
        if link:
            found, fix = f"a link to the missing file {link}", "download or save it again"
        raise UnusableInput(f"{path}: cannot be read: expected a file, got {found}. Fix: {fix}.") from None
    if not stat.S_ISREG(kind):
        raise UnusableInput(f"{path}: expected a plain file, got {_special_kind(kind)}. Fix: give a file.")
    with path.open("rb") as file:
        start = file.read(HEAD_BYTES)
    problem = _placeholder(start)
    if problem:
        raise UnusableInput(f"{path}: this is {problem}.")


def check_binary_file(path: Path) -> None:
    """Raise UnusableInput as ``check_plain_file`` does, and for a file with a short text in place of binary data."""
    check_plain_file(path)
    with path.open("rb") as file:
        start = file.read(HEAD_BYTES)
    text = start.decode("utf-8", errors="replace").strip()
    if len(start) < HEAD_BYTES and text and all(char.isprintable() or char.isspace() for char in text):
        shown = " ".join(text.split())[:60]
        raise UnusableInput(f"{path}: expected binary data, got the text {shown!r}. Fix: download it again.")


def _placeholder(start: bytes) -> str:
    """Return the kind of a file without content of its own, with a fix; empty for other files.

    Args:
        start: First bytes of the file.
    """
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "an empty file. Fix: download or save it again"
    if text.startswith(LFS_STARTS):
        return "a Git LFS pointer: run `git lfs pull`"
    if text.startswith(b"# xet version"):
        return "a Xet pointer: run `git xet checkout`, or download the file with `hf download`"
    if start.startswith(ANNEX.encode()) or b".git/annex/objects/" in start[:64]:
        return "a git-annex pointer: run `git annex get`"
    if LINK_TEXT.fullmatch(start):
        return "a link stored as text, from a copy without links. Fix: copy it again with its links, or download it"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "a web page (HTML), probably of a failed download. Fix: download the file itself"
    if text.startswith(b"<?xml") and b"<error>" in text:
        return "an error message of a file server, from a failed download. Fix: download the file again"
    return ""


def _special_kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a folder" if stat.S_ISDIR(mode) else "a special file")


def inside(folder: Path, name: str) -> Path:
    """Return the path of a plain file inside a folder, all links followed, with content of its own.

    The hub's local cache keeps its files in a folder ``blobs``, a sibling of ``snapshots``. Links into it are allowed,
    from any depth below ``snapshots/REVISION/``.

    Args:
        folder: The folder.
        name: Name of the file, relative to the folder.

    Raises:
        UnusableInput: The file is missing, lies outside the folder, or is a pointer to a file elsewhere.
    """
    path = folder / name
    if not is_inside(folder, path):
        raise UnusableInput(f"{folder}: {name!r} leads out of the model's folder. Fix: move all its files inside.")
    if not path.exists():
        if path.is_symlink():
            check_plain_file(path)
        raise UnusableInput(f"{folder}: expected the file {name!r}, which is missing")
    check_plain_file(path)
    return path


def is_inside(folder: Path, path: Path) -> bool:
    """Return whether a path lies in a folder, all links followed, or in the hub's cache behind it.

    Args:
        folder: The folder.
        path: The path.
    """
    try:
        home, target = folder.resolve(), path.resolve()
    except (OSError, RuntimeError, ValueError):  # loops of links, NUL in the name
        return False
    return any(target.is_relative_to(root) for root in (home, *_hub_blobs(home)))


def _hub_blobs(home: Path) -> list[Path]:
    """Return the folder ``blobs`` of the hub's cache around a folder of a snapshot; none outside of such a cache."""
    revisions = [place for place in (home, *home.parents) if place.parent.name == "snapshots"]
    return [place.parent.parent / "blobs" for place in revisions[:1]]


def read_text(path: Path, *, most: int) -> str:
    """Return the text of a plain file.

    Args:
        path: The file, in UTF-8, with or without a byte order mark.
        most: Largest number of bytes.

    Raises:
        UnusableInput: The file cannot be read, is larger, is no plain file, or is no text in UTF-8.
    """
    try:
        check_plain_file(path)
        size = path.stat().st_size
        if size > most:
            raise UnusableInput(f"{path}: expected at most {most} bytes, got {size}. Fix: give a smaller file.")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnusableInput(f"{path}: expected text in UTF-8, got other bytes: {error.reason}") from None
    except OSError as error:
        raise UnusableInput(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # NUL in the name
        raise UnusableInput(f"{path!r}: cannot be read: {error}") from None


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
    """Return the JSON value, of any type, in a file of at most 16 MiB; see ``parse_json``."""
    check_plain_file(path)
    refuse_long_json(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except ValueError as error:
        raise UnusableInput(f"{path}: is not valid JSON ({error})") from None
    return parse_json(text, str(path))


def parse_json(text: str, where: str) -> Any:
    """Return the value of a JSON text.

    Readers of JSON differ on NaN, on a key given twice, on huge numbers and on half characters. All four are errors.

    Args:
        text: The text.
        where: Name of the file in error messages.

    Raises:
        UnusableInput: The text is not valid JSON, or holds one of the above, or nests deeper than 100 levels.
    """
    try:
        value = json.loads(
            text, parse_constant=_number, parse_int=_integer, parse_float=_number, object_pairs_hook=_object
        )
        if _depth_exceeds(value, MAX_JSON_DEPTH):
            raise ValueError(f"it nests deeper than {MAX_JSON_DEPTH} levels")
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UnusableInput(f"{where}: is not valid JSON (a text holds half of a character)") from None
    except RecursionError:
        raise UnusableInput(f"{where}: is not valid JSON (it nests deeper than {MAX_JSON_DEPTH} levels)") from None
    except ValueError as error:
        raise UnusableInput(f"{where}: is not valid JSON ({error})") from None
    return value


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"expected finite numbers, got {text[:20]}")
    return value


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"expected whole numbers of at most {MAX_DIGITS} digits, got one of {len(text)}")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:40]!r} is given twice")
    return found


def _depth_exceeds(value: Any, most: int) -> bool:
    """Return whether lists and objects nest deeper than ``most`` levels."""
    level = [value]
    for _ in range(most + 1):
        nested = [part for part in level if isinstance(part, dict | list)]
        if not nested:
            return False
        level = [part for whole in nested for part in (whole.values() if isinstance(whole, dict) else whole)]
    return True


def refuse_long_json(path: Path) -> None:
    """Raise UnusableInput for a JSON file larger than 16 MiB. The function does not open the file."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise UnusableInput(f"{path}: expected at most {MAX_JSON_BYTES} bytes of JSON, got {path.stat().st_size}")
