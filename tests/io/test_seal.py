"""Seals of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.core.errors import UnusableInput
from assay.io.seal import has_seal, key_path, seal


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_seal_is_valid_for_the_same_content_only() -> None:
    given = seal(b"content")
    assert has_seal(b"content", given)
    assert not has_seal(b"Content", given)
    assert not has_seal(b"content", None)
    assert not has_seal(b"content", "\N{SNOWMAN}")


def test_seal_of_another_user_is_invalid(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = seal(b"content")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "other"))
    assert not has_seal(b"content", given)


def test_key_is_private_and_kept() -> None:
    seal(b"content")
    key = key_path().read_bytes()
    assert key_path().stat().st_mode & 0o077 == 0
    seal(b"content")
    assert key_path().read_bytes() == key


def test_key_of_another_size_is_replaced() -> None:
    seal(b"content")
    key_path().write_bytes(b"")
    assert has_seal(b"content", seal(b"content"))
    assert len(key_path().read_bytes()) == 32


def test_folder_without_write_access_one_line_error(cache: Path) -> None:
    cache.write_text("a file in place of the folder")
    with pytest.raises(UnusableInput) as error:
        seal(b"content")
    assert "\n" not in str(error.value)
