"""Digests of data sources, so that a cache notices new content under an old path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assay.data.readers.generated import is_synthetic
from assay.io.files import sha256_of

# Settings of attacks and stages that name data.
SOURCES = ("data", "references")


def digest_of_source(source: str) -> str | None:
    """Return the sha256 over the files of a data set; None for generated data, hub ids and missing paths."""
    path = Path(source)
    if is_synthetic(source) or not (path.is_file() or path.is_dir()):  # a pipe would wait without end
        return None
    return sha256_of(sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path])


def digests_of_sources(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the digests of all local data sets in ``settings``, by path."""
    paths = [str(settings[name]) for name in SOURCES if settings.get(name)]
    digests = {path: digest_of_source(path) for path in paths}
    return {path: digest for path, digest in digests.items() if digest is not None}
