"""Seal of a file: shows that assay wrote it under this user account.

The seal is an HMAC-SHA256 with a random key of the user. The key is a file in the user's cache folder. A file from
another source, for instance from a downloaded repository, has no valid seal.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from assay.core.errors import UnusableInput
from assay.io.atomic import write_atomically

KEY_BYTES = 32  # as many as SHA-256 has


def seal(content: bytes) -> str:
    """Return the seal of ``content`` in hexadecimal digits.

    Raises:
        UnusableInput: The key can neither be read nor written.
    """
    return hmac.new(_key(), content, hashlib.sha256).hexdigest()


def has_seal(content: bytes, given: object) -> bool:
    """Return whether ``given`` is the seal of ``content``.

    Args:
        content: The sealed bytes.
        given: The seal to check, of any type.

    Raises:
        UnusableInput: The key can neither be read nor written.
    """
    return isinstance(given, str) and hmac.compare_digest(seal(content).encode(), given.encode("utf-8", "replace"))


def key_path() -> Path:
    """Return the path of the key.

    Raises:
        UnusableInput: The user has no home folder.
    """
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        raise UnusableInput("expected a home folder, got none. Fix: set XDG_CACHE_HOME.") from None
    return Path(cache) / "assay" / "seal.key"


def _key() -> bytes:
    """Return the key of the user, a new one if there is none."""
    path = key_path()
    try:
        if path.stat().st_size == KEY_BYTES and path.is_file():
            return path.read_bytes()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UnusableInput(f"{path}: cannot be read: {error.strerror or error}") from None
    write_atomically(path, secrets.token_bytes(KEY_BYTES), parents=True, private=True)
    return path.read_bytes()  # of the process that wrote last
