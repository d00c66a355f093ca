"""What data is made of, so that other content under an old path is not taken for the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assay.data.readers.generated import is_synthetic
from assay.io.files import sha256_of

SOURCES = ("data", "references")
"""The settings of attacks and stages that name data."""


def content_of(source: str) -> str | None:
    """sha256 over the files of a data set; None for what is made up, on a hub or not there."""
    path = Path(source)
    if is_synthetic(source) or not path.exists():
        return None
    return sha256_of(sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path])


def contents_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """That of all data that ``settings`` name, by the path."""
    paths = [str(settings[name]) for name in SOURCES if settings.get(name)]
    found = {path: content_of(path) for path in paths}
    return {path: content for path, content in found.items() if content is not None}
