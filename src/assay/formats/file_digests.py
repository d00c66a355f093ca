"""Digests of all files that assay read for a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from assay.core.errors import UnusableInput
from assay.core.model import Artifact, FileDigest
from assay.io.files import inside, sha256_of

# Files that change the meaning of the weights next to them. The digest of an artifact leaves some of them out.
SIDECARS = (
    "config.json", "preprocessor_config.json", "processor_config.json", "model.safetensors.index.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "1_Pooling/config.json", "modules.json",
)  # fmt: skip
SUBFOLDER = "onnx"  # folder of optimum for ONNX files, below the folder with the sidecars
CHUNK = 2**20  # bytes


def with_digests(artifact: Artifact, path: Path, files: Sequence[Path]) -> Artifact:
    """Return the artifact with its digest, and with the digest of each file.

    Args:
        artifact: The model.
        path: Its file or folder.
        files: Files behind the artifact's digest, in their order. Files of ``SIDECARS`` are added to them.
    """
    folder = folder_of(path)
    total = hashlib.sha256()
    found = {}
    for path in files:
        single = hashlib.sha256()
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                total.update(chunk)
                if len(files) > 1:
                    single.update(chunk)
        found[name_in(folder, path)] = (single if len(files) > 1 else total).hexdigest()
    for name in sidecars_in(folder):
        if name not in found:
            found[name] = sha256_of([folder / name])
    digests = tuple(FileDigest(name, digest) for name, digest in found.items())
    return replace(artifact, digest=total.hexdigest(), files=digests)


def folder_of(model: Path) -> Path:
    """Return the folder of a model's files, given the model's file or folder."""
    folder = model if model.is_dir() else model.parent
    return folder.parent if folder.name == SUBFOLDER else folder


def sidecars_in(folder: Path) -> list[str]:
    """Return the names of the files of ``SIDECARS`` in a folder. Links out of the folder do not count."""
    found = []
    for name in SIDECARS:
        try:
            inside(folder, name)
        except (UnusableInput, OSError):
            continue
        found.append(name)
    return found


def name_in(folder: Path, path: Path) -> str:
    """Return the name of a file relative to the model's folder.

    Args:
        folder: The folder.
        path: The file, or the target of a link in the folder.
    """
    try:
        return path.relative_to(folder).as_posix()
    except ValueError:  # the file behind a link, as in the hub's cache
        return path.name
