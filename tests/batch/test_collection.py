from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from assay.batch import collection
from assay.batch.collection import digest_of, models_of
from assay.core.errors import UnusableInput


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


def test_a_hugging_face_folder_stays_one(zoo: Path) -> None:
    (zoo / "one").mkdir()
    (zoo / "one/model.safetensors").write_text("one")
    assert models_of(["zoo/hf", "zoo/one"]) == ["zoo/hf", "zoo/one/model.safetensors"]


def test_patterns_lists_and_hub_ids_each_once(zoo: Path, tmp_path: Path) -> None:
    lines = "\ufeff# mine\n\nzoo/deep\nowner/name\n./zoo/a.safetensors\n"
    (tmp_path / "list.txt").write_text(lines, encoding="utf-8")
    found = models_of(["zoo/*.safetensors", "zoo/**/c.onnx"], Path("list.txt"))
    assert found == ["zoo/a.safetensors", "zoo/b.safetensors", "zoo/deep/c.onnx", "owner/name"]


@pytest.mark.parametrize("given", ["nothing-here.onnx", "*.onnxx", "empty", "", "dangling.onnx", "dangl*"])
def test_nothing_is_said_in_one_line(given: str, zoo: Path) -> None:
    Path("empty").mkdir()
    Path("dangling.onnx").symlink_to("gone.onnx")
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


def test_a_bad_line_of_a_list_is_a_row_of_its_own(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("zoo/gone.onnx\nzoo/a.safetensors\n")
    assert models_of([], tmp_path / "list.txt") == ["zoo/gone.onnx", "zoo/a.safetensors"]


def test_pickles_are_rows_too(zoo: Path) -> None:
    (zoo / "old.pt").write_bytes(b"never opened")
    assert "zoo/old.pt" in models_of(["zoo"])


def test_links_in_a_circle_are_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").symlink_to(tmp_path / "b.onnx")
    (tmp_path / "b.onnx").symlink_to(tmp_path / "a.onnx")
    (tmp_path / "c.onnx").write_text("c")
    with pytest.raises(UnusableInput, match=r"cannot be read|no model there"):
        models_of([str(tmp_path / "a.onnx")])


def test_a_digest_covers_all_that_is_read(zoo: Path, tmp_path: Path) -> None:
    """Names of files, what lies deeper, the notes on preprocessing beside a file, tensors outside of an ONNX file."""
    seen = {digest_of("zoo/hf")}
    (zoo / "hf/model.safetensors").rename(zoo / "hf/z.safetensors")
    seen.add(digest_of("zoo/hf"))
    (zoo / "hf/sub").mkdir()
    (zoo / "hf/sub/part.safetensors").write_text("more")
    seen.add(digest_of("zoo/hf"))
    assert len(seen) == 3
    bare = digest_of("zoo/a.safetensors")
    (zoo / "preprocessor_config.json").write_text("{}")
    assert digest_of("zoo/a.safetensors") != bare
    (zoo / "a.onnx").write_text("a.safetensors")
    assert digest_of("zoo/a.onnx") != digest_of("zoo/a.safetensors")
    save_linear(tmp_path / "outer.onnx", 1.0)
    first = digest_of(str(tmp_path / "outer.onnx"))
    save_linear(tmp_path / "outer.onnx", 2.0)
    assert digest_of(str(tmp_path / "outer.onnx")) != first


def save_linear(path: Path, weight: float) -> None:
    """An ONNX file whose weights lie in a file of their own."""
    values = numpy_helper.from_array(np.full((2, 2), weight, np.float32), "w")
    tensor = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2]) for name in ("x", "y")]
    path.with_name("w.data").unlink(missing_ok=True)
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", tensor[:1], tensor[1:], [values])
    onnx.save(helper.make_model(graph), path, save_as_external_data=True, location="w.data", size_threshold=0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_said(zoo: Path) -> None:
    (zoo / "a.safetensors").chmod(0)
    with pytest.raises(UnusableInput, match="cannot read"):
        digest_of("zoo/a.safetensors")
