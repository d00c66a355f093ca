from __future__ import annotations

import os
from pathlib import Path

import pytest

from assay.errors import UnusableInput
from assay.many import collection
from assay.many.collection import digest_of, models_of


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two bare files, an ONNX file deeper, a Hugging Face folder, and what is none of it."""
    for name in (
        "a.safetensors",
        "b.safetensors",
        "deep/c.onnx",
        "hf/model.safetensors",
        "hf/config.json",
        "notes.txt",
    ):
        path = tmp_path / "zoo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "zoo/.git").mkdir()
    (tmp_path / "zoo/.git/d.onnx").write_text("hidden")
    (tmp_path / "outside.onnx").write_text("outside")
    (tmp_path / "zoo/link.onnx").symlink_to(tmp_path / "outside.onnx")
    monkeypatch.chdir(tmp_path)
    return Path("zoo")


def test_a_folder_is_opened_up(zoo: Path) -> None:
    assert models_of(["zoo"]) == ["zoo/a.safetensors", "zoo/b.safetensors", "zoo/deep/c.onnx", "zoo/hf"]


def test_a_folder_that_is_a_model_stays_one(zoo: Path) -> None:
    (zoo / "one").mkdir()
    (zoo / "one/model.safetensors").write_text("one")
    assert models_of(["zoo/hf", "zoo/one"]) == ["zoo/hf", "zoo/one"]


def test_patterns_lists_and_hub_ids_each_once(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# mine\n\nzoo/deep\nowner/name\nzoo/a.safetensors\n")
    found = models_of(["zoo/*.safetensors", "zoo/**/c.onnx"], Path("list.txt"))
    assert found == ["zoo/a.safetensors", "zoo/b.safetensors", "zoo/deep/c.onnx", "zoo/deep", "owner/name"]


@pytest.mark.parametrize("given", ["nothing-here.onnx", "*.onnxx", "empty"])
def test_nothing_is_said_in_one_line(given: str, zoo: Path) -> None:
    Path("empty").mkdir()
    with pytest.raises(UnusableInput, match="no model there"):
        models_of([given])


def test_no_arguments_are_refused() -> None:
    with pytest.raises(UnusableInput, match="expected models"):
        models_of([])


def test_a_list_that_cannot_be_used_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnusableInput, match="cannot be read"):
        models_of([], tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnusableInput, match="text in UTF-8"):
        models_of([], tmp_path / "binary")
    (tmp_path / "long").write_text("x" * 100)
    monkeypatch.setattr(collection, "MOST_LIST_BYTES", 99)
    with pytest.raises(UnusableInput, match="at most 99 bytes"):
        models_of([], tmp_path / "long")


def test_too_many_are_refused(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "MOST_MODELS", 2)
    with pytest.raises(UnusableInput, match="4 models are too many"):
        models_of(["zoo"])


def test_a_digest_is_of_what_is_there(zoo: Path) -> None:
    first = digest_of("zoo/a.safetensors")
    (zoo / "copy.safetensors").write_text("a.safetensors")
    assert digest_of("zoo/copy.safetensors") == first != digest_of("zoo/b.safetensors")
    folder = digest_of("zoo/hf")
    (zoo / "hf/config.json").write_text("another")
    assert digest_of("zoo/hf") != folder
    assert digest_of("owner/name") == "hub:owner/name"
    with pytest.raises(UnusableInput, match="cannot read"):
        digest_of("zoo/gone.onnx")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_said(zoo: Path) -> None:
    (zoo / "a.safetensors").chmod(0)
    with pytest.raises(UnusableInput, match="cannot read"):
        digest_of("zoo/a.safetensors")
