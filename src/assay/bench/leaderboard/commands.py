"""File names of the specifications next to the page, and the commands for repeating a record."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

MAX_NAME_LENGTH = 40  # characters of a specification's name in a file name


def spec_files(names: Iterable[str]) -> dict[str, str]:
    """Return a file name for each specification, by its name. File names hold letters, digits, - and _ only."""
    files: dict[str, str] = {}
    for number, name in enumerate(names, start=1):
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:MAX_NAME_LENGTH]
        files[name] = f"spec-{plain}.yaml" if plain == name else f"spec-{number}-{plain or 'unnamed'}.yaml"
    return files


def commands(names: Iterable[str]) -> dict[str, str]:
    """Return the command for repeating a record in a new store, by the specification. The record's key follows it."""
    return {
        name: f"assay bench run {shlex.quote(file)} --store again --only " for name, file in spec_files(names).items()
    }
