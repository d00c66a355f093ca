"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from assay.core.errors import UnusableInput


def write_text_atomically(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8. Raises UnusableInput, and leaves what was there, when the disk does not take it."""
    write_bytes_atomically(path, text.encode("utf-8"))


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` under a temporary name in the same folder, then rename it."""
    with _one_clear_line(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            path.write_bytes(content)  # a pipe or /dev/stdout: renaming a file over it would destroy it
            return
        target = Path(os.path.realpath(path))  # a link stays a link; the file behind it is replaced
        temporary = target.with_name(f".{secrets.token_hex(6)}.assay-tmp")
        try:
            _write_through(temporary, content)
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def publish(directory: Path, files: Mapping[str, bytes], *, stale: tuple[str, ...] = ()) -> dict[str, Path]:
    """Write ``files`` (content by relative name) into ``directory``: all of them, or none.

    Files that match the glob patterns ``stale`` and are not written now go; all else in the folder stays.
    """
    with _one_clear_line(directory):
        if not directory.exists():
            _publish_new(directory, files)
        else:
            _publish_into(directory, files, stale)
    return {name: directory / name for name in files}


def _publish_new(directory: Path, files: Mapping[str, bytes]) -> None:
    target = Path(os.path.realpath(directory))
    target.parent.mkdir(parents=True, exist_ok=True)
    with _scratch(target.parent) as scratch:
        staged = scratch / "new"
        _stage(staged, files)
        os.rename(staged, target)


def _publish_into(directory: Path, files: Mapping[str, bytes], stale: tuple[str, ...]) -> None:
    # The scratch folder lies inside, not beside: the folder may be a mount point, over whose edge nothing is renamed.
    with _scratch(directory) as scratch:
        staged, old = scratch / "new", scratch / "old"
        _stage(staged, files)
        gone = {str(path.relative_to(directory)) for pattern in stale for path in directory.glob(pattern)}
        done: list[str] = []
        try:
            for name in sorted(gone | set(files)):
                done.append(name)
                _exchange(directory / name, staged / name, old / name)
        except BaseException:
            for name in done:
                _put_back(directory / name, old / name, ours=not (staged / name).exists() and name in files)
            raise


def _exchange(target: Path, new: Path, old: Path) -> None:
    """Move ``target`` to ``old`` if it is there, and ``new`` to ``target`` if there is a new one."""
    if target.is_dir():
        raise IsADirectoryError(21, "a folder is in the way", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() or target.is_symlink():
        old.parent.mkdir(parents=True, exist_ok=True)
        os.rename(target, old)
    if new.exists():
        os.rename(new, target)


def _put_back(target: Path, old: Path, *, ours: bool) -> None:
    """Undo ``_exchange``; ``ours`` says that the new file had already taken its place."""
    if ours:
        target.unlink(missing_ok=True)
    if old.exists() or old.is_symlink():
        os.rename(old, target)


def _stage(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _write_through(folder / name, content)


def _write_through(path: Path, content: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())  # some file systems report a full disk only here


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    # Not tempfile.mkdtemp: its folders are private (0700), and what is renamed out of them should follow the umask.
    folder = parent / f".{secrets.token_hex(6)}.assay-tmp"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _one_clear_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        where = repr(str(path)) if not str(path).isprintable() else str(path)
        raise UnusableInput(
            f"could not write {where}: {why}; nothing was written there: free some space or choose another place"
        ) from error
