"""Facts in the files next to a model file: size, normalization, class names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from assay.core.errors import UnusableInput
from assay.formats.class_names import read_class_names
from assay.formats.options import LoadOptions
from assay.formats.siblings import sibling_files, sibling_metadata

PROCESSOR = {"size": 8, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5]}
CONFIG = {"model_type": "resnet", "id2label": {"0": "cat", "1": "dog"}}
TIMM = {
    "architecture": "resnet18",
    "pretrained_cfg": {"input_size": [3, 8, 8], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "crop_pct": 0.8},
    "label_names": ["cat", "dog"],
}


def write(folder: Path, **files: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / "model.onnx"


def test_size_normalization_and_names_come_from_hugging_face_files(tmp_path: Path) -> None:
    found = sibling_metadata(write(tmp_path, preprocessor_config=PROCESSOR, config=CONFIG), LoadOptions())
    assert found.inputs is not None
    assert found.inputs.shape == (3, 8, 8)
    assert found.normalization is not None
    assert found.normalization.mean == pytest.approx((0.1, 0.2, 0.3))
    assert found.class_names == ("cat", "dog")
    assert found.notes == ()
    assert "preprocessor_config.json next to the model" in found.normalization_note()


def test_files_one_folder_above_the_folder_onnx_count(tmp_path: Path) -> None:
    write(tmp_path, config=CONFIG)
    (tmp_path / "onnx").mkdir()
    assert sibling_metadata(tmp_path / "onnx" / "model.onnx", LoadOptions()).class_names == ("cat", "dog")
    assert sibling_files(tmp_path / "onnx" / "model.onnx") == [tmp_path / "config.json"]
    (tmp_path / "other").mkdir()
    assert sibling_metadata(tmp_path / "other" / "model.onnx", LoadOptions()).class_names is None


def test_timm_config_gives_size_crop_normalization_and_names(tmp_path: Path) -> None:
    found = sibling_metadata(write(tmp_path, config=TIMM), LoadOptions())
    assert found.inputs is not None
    assert (found.inputs.shape, found.inputs.resize, found.inputs.crop) == ((3, 8, 8), 10, True)
    assert found.inputs.resample == "bicubic"
    assert found.normalization is not None
    assert found.class_names == ("cat", "dog")


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1, "a": 2}', "version https://git-lfs.github.com/spec/v1\n"])
def test_unusable_file_is_noted(tmp_path: Path, content: str) -> None:
    found = sibling_metadata(write(tmp_path, preprocessor_config=content), LoadOptions())
    assert found.normalization is None
    assert "preprocessor_config.json next to the model is not used" in found.notes[0]


def test_size_without_a_normalization_is_used_with_a_note(tmp_path: Path) -> None:
    found = sibling_metadata(write(tmp_path, preprocessor_config={"size": 8}), LoadOptions())
    assert found.inputs is not None
    assert found.normalization is None
    assert "the normalization next to the model is not used" in found.notes[0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"0": "a", "2": "b"}, "expected the numbers 0 to 1 .* got '2'"),
        ({"1": "a", "2": "b"}, "got '2'"),
        ({"0": "a", "01": "b"}, "got '01'"),
        ({"first": "a", "second": "b"}, "got 'first', 'second'"),
        ({"0": None, "1": "b"}, "one name per class number"),
    ],
)
def test_class_numbers_with_gaps_or_words_are_no_choice(labels: dict[str, object], message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        read_class_names({"id2label": labels}, "config.json")


def test_two_numberings_of_the_same_names_are_refused() -> None:
    labels = {"0": "cat", "1": "dog"}
    with pytest.raises(UnusableInput, match="label2id gives it 1"):
        read_class_names({"id2label": labels, "label2id": {"cat": 1, "dog": 0}}, "config.json")
    assert read_class_names({"id2label": labels, "label2id": {"LABEL_0": 0}}, "config.json") == ("cat", "dog")


def test_two_classes_can_have_the_same_name() -> None:
    labels = {"0": "crane", "1": "crane"}
    assert read_class_names({"id2label": labels, "label2id": {"crane": 1}}, "config.json") == ("crane", "crane")


def test_settings_nested_in_the_file_of_the_whole_processor_take_precedence(tmp_path: Path) -> None:
    nested = {"image_processor": {**PROCESSOR, "size": 12}, "processor_class": "XProcessor"}
    path = write(tmp_path, processor_config=nested, config=CONFIG)
    found = sibling_metadata(path, LoadOptions())
    assert (found.inputs and found.inputs.shape, found.source) == ((3, 12, 12), "processor_config.json")
    assert found.notes == ()
    write(tmp_path, preprocessor_config=PROCESSOR)
    both = sibling_metadata(path, LoadOptions())
    assert both.inputs == found.inputs
    assert "preprocessor_config.json differs from processor_config.json and is not used" in both.notes[0]
    write(tmp_path, processor_config={"processor_class": "XProcessor"})
    assert sibling_metadata(path, LoadOptions()).source == "preprocessor_config.json"


def test_names_can_be_in_label2id_alone() -> None:
    assert read_class_names({"label2id": {"dog": 1, "cat": 0}}, "x") == ("cat", "dog")
    with pytest.raises(UnusableInput, match="expected the numbers 0 to 1 for the 2 classes of label2id"):
        read_class_names({"label2id": {"dog": 1, "cat": 2}}, "x")
