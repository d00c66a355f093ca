"""Where the models of a bench are kept: a folder, or any place that fsspec knows, such as an object store."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from assay.errors import UnusableInput
from assay.formats.files import write_whole


@dataclass(frozen=True)
class Blobs:
    """Files by name below ``url``: a path, or as fsspec writes it (``s3://bucket/folder``)."""

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
            raise UnusableInput(f"{self.url}: fsspec cannot reach it: {error}") from None

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
        if not path.exists() and system.exists(f"{root}/{name}"):
            write_whole(path, system.cat_file(f"{root}/{name}"))
        return path

    def put(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all; one that is there is replaced."""
        if self.is_folder:
            write_whole(Path(self.url) / name, content)
            return
        system, root = self._remote
        (self._fetched / name).unlink(missing_ok=True)
        try:
            system.makedirs(root, exist_ok=True)
            system.pipe_file(f"{root}/{name}", content)
        except OSError as error:
            raise UnusableInput(f"cannot write {self.url}/{name}: {error}") from None
