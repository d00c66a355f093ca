"""Paths and ids of models for code scanning services."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.core.result import ModelInfo
from assay.report.repository_path import OUTSIDE, RepositoryPath, repository_path


def model(path: str | Path, format: str = "onnx") -> ModelInfo:
    return ModelInfo(str(path), "3f" * 32, format, "image", 10, None)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a git repository whose folder "work" is the working folder."""
    root = tmp_path / "repository"
    (root / ".git").mkdir(parents=True)
    (root / "work").mkdir()
    monkeypatch.chdir(root / "work")
    return root


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("m.onnx", "work/m.onnx"),
        ("./m.onnx", "work/m.onnx"),
        ("../models/m.onnx", "models/m.onnx"),
        ("../work/../m.onnx", "m.onnx"),
    ],
)
def test_path_is_relative_to_the_root_of_the_repository(repository: Path, given: str, expected: str) -> None:
    assert repository_path(model(given)) == RepositoryPath(expected, True)


def test_absolute_path_and_link_are_found_in_the_repository(repository: Path, tmp_path: Path) -> None:
    assert repository_path(model(repository / "a b.onnx")).uri == "a%20b.onnx"
    (repository / "m.onnx").write_text("")
    (tmp_path / "link.onnx").symlink_to(repository / "m.onnx")
    assert repository_path(model(tmp_path / "link.onnx")) == RepositoryPath("m.onnx", True)


@pytest.mark.parametrize("given", ["/elsewhere/m.onnx", "../../m.onnx", "../../../../../../../../m.onnx"])
def test_model_outside_has_a_path_inside(repository: Path, given: str) -> None:
    assert repository_path(model(given)) == RepositoryPath(f"{OUTSIDE}/m.onnx", False)


def test_model_in_another_repository_has_a_path_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other" / ".git").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert repository_path(model(tmp_path / "other" / "a" / "m.onnx")) == RepositoryPath("a/m.onnx", True)


def test_folder_without_repository_is_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert repository_path(model("sub/m.onnx")) == RepositoryPath("sub/m.onnx", True)


@pytest.mark.parametrize("path", ["model", "", "\x00", "a" * 5000, "\udcff", "/"])
def test_any_name_gives_a_relative_uri(repository: Path, path: str) -> None:
    for format in ("module", "onnx"):
        found = repository_path(model(path, format))
        assert found.path
        assert not found.path.startswith("/")
        assert ".." not in found.path.split("/")
        assert set(found.identity("0" * 64)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def test_id_follows_the_path_inside_and_the_content_outside() -> None:
    inside, outside = RepositoryPath("a/m.onnx", True), RepositoryPath(f"{OUTSIDE}/m.onnx", False)
    assert inside.identity("0" * 64) == inside.identity("1" * 64)
    assert inside.identity("0" * 64) != RepositoryPath("b/m.onnx", True).identity("0" * 64)
    assert outside.identity("0" * 64) != outside.identity("1" * 64)
    assert RepositoryPath("a-b", True).identity("") != RepositoryPath("a/b", True).identity("")
