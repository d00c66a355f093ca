"""Storage of a bench's models: a folder, or any place known to fsspec, such as an object store."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from assay.core.errors import AssayError, Unreachable, UnusableInput, first_line
from assay.io.atomic import remove_abandoned, write_atomically
from assay.sandbox.network import network_allowed


@dataclass(frozen=True)
class ObjectStore:
    """Files by name below ``url``: a path, or a URL of fsspec (``s3://bucket/folder``).

    All methods raise Unreachable if they cannot read or write a file.
    """

    url: str

    @property
    def is_folder(self) -> bool:
        """True if the files are in a folder of this machine."""
        return "://" not in self.url

    @cached_property
    def _remote(self) -> tuple[Any, str]:
        import fsspec

        try:
            return fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise Unreachable(f"{self.url}: fsspec cannot reach it: {error}") from None

    @cached_property
    def _downloads(self) -> Path:
        """Folder of this process's downloads; it is removed with this object."""
        folder = tempfile.mkdtemp(prefix="assay-blobs-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    def local_path(self, name: str) -> Path:
        """Return the local path of a file, after a download if it is remote; the file may be missing."""
        if self.is_folder:
            return Path(self.url) / name
        path = self._downloads / name
        with self._translate_errors("read", name), network_allowed(f"reading {self.url}"):
            system, root = self._remote
            if not path.exists() and system.exists(f"{root}/{name}"):
                write_atomically(path, system.cat_file(f"{root}/{name}"), parents=True)
        return path

    def put(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all; an earlier file of that name is replaced.

        Args:
            name: Name of the file.
            content: Its bytes.
        """
        with self._translate_errors("write", name):
            if self.is_folder:
                write_atomically(Path(self.url) / name, content, parents=True)
                return
        with self._translate_errors("write", name), network_allowed(f"writing to {self.url}"):
            system, root = self._remote
            (self._downloads / name).unlink(missing_ok=True)
            system.makedirs(root, exist_ok=True)
            system.pipe_file(f"{root}/{name}", content)

    def check_writable(self) -> None:
        """Write a small file, so that a read-only place fails before hours of work."""
        self.put(".assay", b"the models of an assay bench are kept here\n")

    def remove_abandoned(self) -> None:
        """Remove the temporary files of killed processes from a folder. Object stores have none."""
        if self.is_folder:
            remove_abandoned(Path(self.url))

    @contextmanager
    def _translate_errors(self, action: str, name: str) -> Iterator[None]:
        try:
            yield
        except UnusableInput as error:
            raise Unreachable(str(error)) from None
        except AssayError:
            raise
        except Exception as error:  # each kind of object store has its own errors
            raise Unreachable(f"cannot {action} {self.url}/{name}: {first_line(error)}") from None
