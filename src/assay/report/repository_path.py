"""Paths of models in a repository, as code scanning services resolve them."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from assay.core.result import ModelInfo
from assay.io.display import escape_controls
from assay.io.jsonable import encodable

OUTSIDE = "models-outside-of-the-repository"  # folder in the reported path; services refuse a result without a path
MAX_NAME = 60  # characters of a name in an id


@dataclass(frozen=True)
class RepositoryPath:
    """Place of a model, relative to the root of the repository."""

    path: str  # with slashes, without ".."
    inside: bool  # False: the model is no file of the repository

    @property
    def uri(self) -> str:
        """The path as a relative URI reference."""
        return quote(self.path)

    def identity(self, digest: str) -> str:
        """Return an id for the uploads on this model: letters, digits and ``._-``, without a slash.

        A model in the repository keeps its id when its content changes, so that a new upload replaces the old one. For
        a model elsewhere, the content is its identity: its folder may have another name in each run.

        Args:
            digest: Digest of the model.
        """
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.path.removeprefix(f"{OUTSIDE}/")).strip("-.")[-MAX_NAME:]
        key = self.path if self.inside else f"{self.path}|{digest}"
        return f"{name or 'model'}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def repository_path(model: ModelInfo) -> RepositoryPath:
    """Return the place of a model in the repository of the working folder, or else in the model's own repository."""
    given = encodable(model.path).replace("\x00", "")
    try:
        place = Path(os.path.abspath(given))
        is_path = model.format != "module" and bool(given) and (model.files == () or place.exists())
        here = Path.cwd()
        for root in (_git_root(here) or here, _git_root(place.parent)) if is_path else ():
            for candidate in (place, place.resolve()) if root is not None else ():
                if root is not None and candidate != root and candidate.is_relative_to(root):
                    return RepositoryPath(candidate.relative_to(root).as_posix(), True)
    except (OSError, RuntimeError, ValueError):  # loops of links, names that are too long
        pass
    # A path that leads out of the repository keeps its last part only; a hub id keeps both parts.
    parts = [part for part in PurePosixPath(given).parts if part not in ("/", "..", ".")]
    is_local = os.path.isabs(given) or ".." in PurePosixPath(given).parts
    name = "/".join(parts[-1:] if is_local else parts[-2:])
    return RepositoryPath(f"{OUTSIDE}/{name[-200:] or 'model'}", False)


def _git_root(folder: Path) -> Path | None:
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)


def full_name(model: ModelInfo) -> str:
    """Return the model's path as given, safe to show."""
    return escape_controls(encodable(model.path))[:1000] or "model"
