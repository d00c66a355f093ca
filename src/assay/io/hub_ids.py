"""Ids on the Hugging Face hub. Only such an id makes assay use the network."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

PREFIX = "hf:"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def hub_id(text: str, *, local_suffixes: Collection[str]) -> str | None:
    """Return the hub id (without ``hf:``) in ``text``, or None if the text can be a path.

    A text is an id if it starts with ``hf:``. A text ``owner/name`` is an id if neither that path nor the folder
    ``owner`` exists, and the name has no suffix of a local file.

    Args:
        text: A path or an id.
        local_suffixes: Suffixes of local files, in lower case, with the dot.
    """
    if text.startswith(PREFIX):
        return text.removeprefix(PREFIX)
    path = Path(text)
    if not HUB_ID.fullmatch(text) or path.suffix.lower() in local_suffixes:
        return None
    return None if path.exists() or path.parent.is_dir() else text
