"""What counts as an id on the Hugging Face hub: the only thing on which assay touches the network."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

PREFIX = "hf:"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def hub_id(text: str, *, local_suffixes: Collection[str]) -> str | None:
    """The hub id (without ``hf:``) that ``text`` means; None where it can be meant as a path.

    It is one with ``hf:`` in front, or as ``owner/name`` where neither that path nor the folder ``owner`` exists and
    the name does not end as a local file's would.
    """
    if text.startswith(PREFIX):
        return text.removeprefix(PREFIX)
    path = Path(text)
    if not HUB_ID.fullmatch(text) or path.suffix.lower() in local_suffixes:
        return None
    return None if path.exists() or path.parent.is_dir() else text
