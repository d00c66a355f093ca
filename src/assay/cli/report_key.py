"""Private keys of the user for signed reports, with their passphrases."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from assay.cli import screen

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PASSPHRASE = "ASSAY_KEY_PASSPHRASE"  # environment variable


def read_key(path: Path) -> Ed25519PrivateKey:
    """Return the private key in a PEM file. A key that other users can read gives a warning.

    Raises:
        UnusableInput: The file is no Ed25519 private key, or the passphrase is missing or wrong.
    """
    from assay.report.keys import permission_warning, read_private_key

    key = read_private_key(path, lambda: passphrase_for(path))
    if (warning := permission_warning(path)) is not None:
        screen.write(warning, style="yellow")
    return key


def passphrase_for(path: Path) -> str | None:
    """Return the passphrase of a key: from the environment, or from a prompt on a terminal. None: there is neither."""
    if PASSPHRASE in os.environ:
        return os.environ[PASSPHRASE]
    if not sys.stdin.isatty():
        return None
    import typer

    return str(typer.prompt(f"Passphrase of {path}", hide_input=True, err=True))
