"""The specs that lie beside the page, and the commands that compute a record of theirs again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

LONGEST = 40


def spec_files(names: Iterable[str]) -> dict[str, str]:
    """A file name for each spec, by the spec's name: harmless in any file system, whatever people call their specs."""
    files: dict[str, str] = {}
    for number, name in enumerate(names, start=1):
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:LONGEST]
        files[name] = f"spec-{plain}.yaml" if plain == name else f"spec-{number}-{plain or 'unnamed'}.yaml"
    return files


def commands(names: Iterable[str]) -> dict[str, str]:
    """By the spec's name what computes one of its records anew, in a store of its own; its key comes at the end."""
    return {
        name: f"assay bench run {shlex.quote(file)} --store again --only " for name, file in spec_files(names).items()
    }
