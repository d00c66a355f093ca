"""What all tests share."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

CACHE = tempfile.TemporaryDirectory(prefix="assay-tests-")  # the key of seals is there, and not in the user's home
os.environ["XDG_CACHE_HOME"] = CACHE.name
os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: `make test` runs a worker on each core


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and third-party models beside the repository; tests that need it skip without it."""
    folder = Path(os.environ.get("ASSAY_SHARED") or Path(__file__).parents[2] / "shared")
    if not (folder / "models").is_dir():
        pytest.skip(f"needs the real models and data in {folder} (or set ASSAY_SHARED)")
    return folder
