"""Models of a batch: folders, patterns, lists, and digests of their files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from assay.batch import collection
from assay.batch.collection import find_models, model_digest
from assay.core.errors import UnusableInput


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two bare files, an ONNX file in a subfolder, a Hugging Face folder, and other files."""
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


def test_folder_stands_for_its_models(zoo: Path) -> None:
    assert find_models(["zoo"]) == ["zoo/a.safetensors", "zoo/b.safetensors", "zoo/deep/c.onnx", "zoo/hf"]


def test_hugging_face_folder_is_one_model(zoo: Path) -> None:
    (zoo / "one").mkdir()
    (zoo / "one/model.safetensors").write_text("one")
    assert find_models(["zoo/hf", "zoo/one"]) == ["zoo/hf", "zoo/one/model.safetensors"]


def test_patterns_lists_and_hub_ids_give_each_model_once(zoo: Path, tmp_path: Path) -> None:
    lines = "\ufeff# mine\n\nzoo/deep\nowner/name\n./zoo/a.safetensors\n"
    (tmp_path / "list.txt").write_text(lines, encoding="utf-8")
    found = find_models(["zoo/*.safetensors", "zoo/**/c.onnx"], Path("list.txt"))
    assert found == ["zoo/a.safetensors", "zoo/b.safetensors", "zoo/deep/c.onnx", "owner/name"]


@pytest.mark.parametrize("given", ["nothing-here.onnx", "*.onnxx", "empty", "", "dangling.onnx", "dangl*"])
def test_argument_without_model_is_refused(given: str, zoo: Path) -> None:
    Path("empty").mkdir()
    Path("dangling.onnx").symlink_to("gone.onnx")
    with pytest.raises(UnusableInput, match="no model there"):
        find_models([given])


def test_no_arguments_are_refused() -> None:
    with pytest.raises(UnusableInput, match="expected models"):
        find_models([])


def test_unusable_list_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnusableInput, match="expected a file, got none"):
        find_models([], tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnusableInput, match="text in UTF-8"):
        find_models([], tmp_path / "binary")
    (tmp_path / "long").write_text("x" * 100)
    monkeypatch.setattr(collection, "MAX_LIST_BYTES", 99)
    with pytest.raises(UnusableInput, match="at most 99 bytes"):
        find_models([], tmp_path / "long")


def test_too_many_models_are_refused(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "MAX_MODELS", 2)
    with pytest.raises(UnusableInput, match="4 models are too many"):
        find_models(["zoo"])


def test_digest_follows_content(zoo: Path) -> None:
    first = model_digest("zoo/a.safetensors")
    (zoo / "copy.safetensors").write_text("a.safetensors")
    assert model_digest("zoo/copy.safetensors") == first != model_digest("zoo/b.safetensors")
    folder = model_digest("zoo/hf")
    (zoo / "hf/config.json").write_text("another")
    assert model_digest("zoo/hf") != folder
    assert model_digest("owner/name") == "hub:owner/name"
    with pytest.raises(UnusableInput, match="cannot read"):
        model_digest("zoo/gone.onnx")


def test_bad_line_of_list_is_kept_as_a_model(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("zoo/gone.onnx\nzoo/a.safetensors\n")
    assert find_models([], tmp_path / "list.txt") == ["zoo/gone.onnx", "zoo/a.safetensors"]


def test_pickles_are_listed(zoo: Path) -> None:
    (zoo / "old.pt").write_bytes(b"never opened")
    assert "zoo/old.pt" in find_models(["zoo"])


def test_circular_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").symlink_to(tmp_path / "b.onnx")
    (tmp_path / "b.onnx").symlink_to(tmp_path / "a.onnx")
    (tmp_path / "c.onnx").write_text("c")
    with pytest.raises(UnusableInput, match=r"cannot be read|no model there"):
        find_models([str(tmp_path / "a.onnx")])


def test_digest_covers_all_files_of_model(zoo: Path, tmp_path: Path) -> None:
    """File names, subfolders, preprocessing settings next to a file, and external tensors of an ONNX file."""
    seen = {model_digest("zoo/hf")}
    (zoo / "hf/model.safetensors").rename(zoo / "hf/z.safetensors")
    seen.add(model_digest("zoo/hf"))
    (zoo / "hf/sub").mkdir()
    (zoo / "hf/sub/part.safetensors").write_text("more")
    seen.add(model_digest("zoo/hf"))
    assert len(seen) == 3
    bare = model_digest("zoo/a.safetensors")
    (zoo / "preprocessor_config.json").write_text("{}")
    assert model_digest("zoo/a.safetensors") != bare
    (zoo / "a.onnx").write_text("a.safetensors")
    assert model_digest("zoo/a.onnx") != model_digest("zoo/a.safetensors")
    save_linear(tmp_path / "outer.onnx", 1.0)
    first = model_digest(str(tmp_path / "outer.onnx"))
    save_linear(tmp_path / "outer.onnx", 2.0)
    assert model_digest(str(tmp_path / "outer.onnx")) != first


def save_linear(path: Path, weight: float) -> None:
    """Save an ONNX file with external weights."""
    values = numpy_helper.from_array(np.full((2, 2), weight, np.float32), "w")
    tensor = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2]) for name in ("x", "y")]
    path.with_name("w.data").unlink(missing_ok=True)
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", tensor[:1], tensor[1:], [values])
    onnx.save(helper.make_model(graph), path, save_as_external_data=True, location="w.data", size_threshold=0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_is_refused(zoo: Path) -> None:
    (zoo / "a.safetensors").chmod(0)
    with pytest.raises(UnusableInput, match="cannot read"):
        model_digest("zoo/a.safetensors")


@pytest.mark.timeout(20)
def test_pipe_in_place_of_list_or_model_is_refused(tmp_path: Path) -> None:
    for name in ("models.txt", "model.onnx"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(UnusableInput, match="expected a plain file, got a pipe"):
        find_models([], tmp_path / "models.txt")
    with pytest.raises(UnusableInput, match="expected a plain file, got a pipe"):
        model_digest(str(tmp_path / "model.onnx"))


def test_nul_in_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models.txt").write_bytes(b"a\0b\n")
    assert find_models([], tmp_path / "models.txt") == ["a\0b"]  # a failed row of the page
    with pytest.raises(UnusableInput, match="cannot read"):
        model_digest("a\0b")
