"""Tests of the storage of a bench's models."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.core.errors import Unreachable
from assay.io.object_store import ObjectStore


@pytest.mark.parametrize("remote", [False, True])
def test_stored_file_is_found_again(tmp_path: Path, remote: bool) -> None:
    url = f"memory://{tmp_path.name}" if remote else str(tmp_path)
    store = ObjectStore(url)
    store.check_writable()
    assert store.is_folder is not remote
    assert not store.local_path("a").exists()
    store.put("a", b"first")
    assert ObjectStore(url).local_path("a").read_bytes() == b"first"
    store.put("a", b"second")
    assert store.local_path("a").read_bytes() == b"second"


def test_unwritable_place_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unreachable, match="could not write"):
        ObjectStore(str(tmp_path / "file")).check_writable()
    with pytest.raises(Unreachable, match="fsspec cannot reach it"):
        ObjectStore("nosuchprotocol://x").check_writable()
