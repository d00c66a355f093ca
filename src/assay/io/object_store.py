"""Where the models of a bench are kept: a folder, or any place that fsspec knows, such as an object store."""

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
from assay.io.atomic import write_atomically


@dataclass(frozen=True)
class Blobs:
    """Files by name below ``url``: a path, or as fsspec writes it (``s3://bucket/folder``).

    Whatever keeps a file from being read or written is raised as Unreachable.
    """

    url: str

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of this machine's."""
        return "://" not in self.url

    @cached_property
    def _remote(self) -> tuple[Any, str]:
        import fsspec

        try:
            return fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise Unreachable(f"{self.url}: fsspec cannot reach it: {error}") from None

    @cached_property
    def _fetched(self) -> Path:
        """Where this process keeps what it has fetched, for as long as this object lives."""
        folder = tempfile.mkdtemp(prefix="assay-blobs-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    def local(self, name: str) -> Path:
        """A path at which the file is, if it is anywhere; what is remote is fetched first."""
        if self.is_folder:
            return Path(self.url) / name
        path = self._fetched / name
        system, root = self._remote
        with self._told("read", name):
            if not path.exists() and system.exists(f"{root}/{name}"):
                write_atomically(path, system.cat_file(f"{root}/{name}"), parents=True)
        return path

    def put(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all; one that is there is replaced."""
        with self._told("write", name):
            if self.is_folder:
                write_atomically(Path(self.url) / name, content, parents=True)
                return
            system, root = self._remote
            (self._fetched / name).unlink(missing_ok=True)
            system.makedirs(root, exist_ok=True)
            system.pipe_file(f"{root}/{name}", content)

    def check(self) -> None:
        """Raises Unreachable where nothing can be written: before hours of work, not after the first."""
        self.put(".assay", b"the models of an assay bench are kept here\n")

    @contextmanager
    def _told(self, what: str, name: str) -> Iterator[None]:
        try:
            yield
        except UnusableInput as error:
            raise Unreachable(str(error)) from None
        except AssayError:
            raise
        except Exception as error:  # each kind of object store has errors of its own
            raise Unreachable(f"cannot {what} {self.url}/{name}: {first_line(error)}") from None
