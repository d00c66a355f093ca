"""Atomic writes: a file, or a folder of files, appears whole or not at all.

A process holds the lock of its temporary files. The kernel releases the lock however the process dies, so that files
in use are distinguished from abandoned ones without clocks.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from assay.core.errors import UnusableInput

# Permissions of a new file: the umask narrows PUBLIC, and only the owner can read a PRIVATE file.
PUBLIC = 0o666
PRIVATE = 0o600
TEMPORARY = re.compile(r"\.[0-9a-f]{12}\.assay-tmp")  # name of a temporary file or folder


def write_atomically(path: Path, content: str | bytes, *, parents: bool = False, private: bool = False) -> None:
    """Write a file under a temporary name in the same folder, then rename it.

    A link stays a link: the function replaces the file behind it. A pipe is written to directly.

    Args:
        path: The file.
        content: Bytes, or text for UTF-8.
        parents: Make missing parent folders.
        private: Let only the owner read the file, from its creation on.

    Raises:
        UnusableInput: The disk does not accept the file. An earlier file stays as it was.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with _one_line_errors(path):
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file() and not path.is_dir():
            path.write_bytes(data)  # a pipe or /dev/stdout: a rename would destroy it
            return
        target = Path(os.path.realpath(path))
        mode = PRIVATE if private else PUBLIC
        with _temporary(target.parent, lambda path: _create(path, mode)) as temporary:
            _fill(temporary, data)
            os.replace(temporary, target)


def remove_abandoned(folder: Path) -> int:
    """Remove the temporary files of killed processes in a folder and below, and return their number.

    Files of running processes stay. Without locks, as on some network file systems, all files stay.
    """
    removed = 0
    for directory, folders, files in os.walk(folder):
        for name in filter(TEMPORARY.fullmatch, [*folders, *files]):
            path = Path(directory, name)
            with suppress(OSError), _open(path) as handle:
                if _lock(handle):
                    _remove(path)
                    removed += 1
        folders[:] = [name for name in folders if not TEMPORARY.fullmatch(name)]
    return removed


def publish(
    directory: Path, files: Mapping[str, bytes], *, stale: Collection[str] = (), private: Collection[str] = ()
) -> dict[str, Path]:
    """Write files into a folder: all of them, or none.

    Args:
        directory: The folder. The function makes a missing one.
        files: Content by relative name.
        stale: Glob patterns of old files to remove, unless ``files`` replaces them. All other files stay.
        private: Names of files for the owner only, from their creation on.

    Returns:
        The paths by name.

    Raises:
        UnusableInput: The disk does not accept the files. The folder stays as it was.
    """
    with _one_line_errors(directory):
        if not directory.exists():
            target = Path(os.path.realpath(directory))
            target.parent.mkdir(parents=True, exist_ok=True)
            with _scratch_folder(target.parent) as scratch:
                _stage(scratch / "new", files, private)
                os.rename(scratch / "new", target)
        else:
            # The scratch folder is inside: a rename cannot cross the edge of a mount point.
            with _scratch_folder(directory) as scratch:
                _stage(scratch / "new", files, private)
                gone = {str(path.relative_to(directory)) for pattern in stale for path in directory.glob(pattern)}
                _exchange_all(directory, scratch, sorted(gone | set(files)), new=files)
    return {name: directory / name for name in files}


def _exchange_all(directory: Path, scratch: Path, names: list[str], *, new: Collection[str]) -> None:
    staged, old = scratch / "new", scratch / "old"
    done: list[str] = []
    try:
        for name in names:
            done.append(name)
            _exchange(directory / name, staged / name, old / name)
    except BaseException:
        for name in done:
            target, before = directory / name, old / name
            if name in new and not (staged / name).exists():  # the new file had taken its place
                target.unlink(missing_ok=True)
            if before.exists() or before.is_symlink():
                os.rename(before, target)
        raise


def _exchange(target: Path, new: Path, old: Path) -> None:
    """Move an existing ``target`` to ``old``, and an existing ``new`` to ``target``."""
    if target.is_dir():
        raise IsADirectoryError(21, "a folder is in the way", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() or target.is_symlink():
        old.parent.mkdir(parents=True, exist_ok=True)
        os.rename(target, old)
    if new.exists():
        os.rename(new, target)


def _stage(folder: Path, files: Mapping[str, bytes], private: Collection[str]) -> None:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _create(folder / name, PRIVATE if name in private else PUBLIC)
        _fill(folder / name, content)


def _create(path: Path, mode: int) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))


def _fill(path: Path, content: bytes) -> None:
    with path.open("r+b") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())  # some file systems report a full disk only here


@contextmanager
def _scratch_folder(parent: Path) -> Iterator[Path]:
    # tempfile.mkdtemp makes private folders (0700); renamed parts of this one have to follow the umask.
    with _temporary(parent, Path.mkdir) as folder:
        yield folder


@contextmanager
def _temporary(parent: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Make a temporary file or folder, and hold its lock until the end. The function removes the path afterwards.

    Args:
        parent: Its folder.
        make: Makes the given path.
    """
    while True:
        path = parent / f".{secrets.token_hex(6)}.assay-tmp"
        make(path)
        with _open(path) as handle:
            try:
                _lock(handle)
            except BlockingIOError:  # another process removes it as abandoned
                continue
            if not path.exists():  # it has done so
                continue
            try:
                yield path
            finally:
                _remove(path)
            return


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _open(path: Path) -> Iterator[int | None]:
    """Open a file or folder for its lock. Yield None if this system or the permissions do not allow it."""
    handle = None
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)


def _lock(handle: int | None) -> bool:
    """Lock an open file or folder. Return False if there are no locks. Raises BlockingIOError if it is locked."""
    try:
        import fcntl  # not on Windows

        fcntl.flock(-1 if handle is None else handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (ImportError, OSError, ValueError):
        return False
    return True


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        place = repr(str(path)) if not str(path).isprintable() else str(path)
        raise UnusableInput(
            f"could not write {place}: {reason}; nothing was written. Fix: free some space or choose another place."
        ) from error
