"""First look at a model: kinds of files and folders, and the way out of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from assay.core.errors import Inconclusive, UnusableInput
from assay.core.options import ModelOptions
from assay.kinds import first_look, look
from assay.kinds.look import TEXT_TESTS
from assay.kinds.table import KINDS

SAFETENSORS = b"\x02\x00\x00\x00\x00\x00\x00\x00{}"
ONNX = b"\x08\x08\x12\x07pytorch" + bytes(20)

CONFIGS: dict[str, dict[str, Any]] = {
    "image-classifier": {"model_type": "vit", "architectures": ["ViTForImageClassification"]},
    "multi-label": {
        "model_type": "vit",
        "architectures": ["ViTForImageClassification"],
        "problem_type": "multi_label_classification",
    },
    "regression": {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "id2label": {"0": "x"}},
    "text-classifier": {"model_type": "bert", "architectures": ["BertForSequenceClassification"]},
    "text-encoder": {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 9},
    "image-encoder": {"model_type": "vit", "architectures": ["ViTModel"], "image_size": 8},
    "dual-encoder": {"model_type": "clip", "architectures": ["CLIPModel"], "text_config": {}, "vision_config": {}},
    "causal-lm": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
    "generation": {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]},
    "pretraining": {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
    "token-task": {"model_type": "bert", "architectures": ["BertForTokenClassification"]},
    "segmentation": {"model_type": "segformer", "architectures": ["SegformerForSemanticSegmentation"]},
    "detection": {"model_type": "yolos", "architectures": ["YolosForObjectDetection"]},
    "dense-images": {"model_type": "dpt", "architectures": ["DPTForDepthEstimation"]},
    "speech": {"model_type": "wav2vec2", "architectures": ["Wav2Vec2ForSequenceClassification"]},
    "video": {"model_type": "vivit", "architectures": ["VivitForVideoClassification"]},
    "other-head": {"model_type": "new", "architectures": ["NewForSomething"]},
    "timm": {"architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 8, 8]}},
    "diffusers": {"_class_name": "UNet2DModel", "_diffusers_version": "0.30"},
    "keras": {"class_name": "Functional", "registered_name": "Functional"},
    "unknown-config": {"lr": 0.1},
}
FOLDERS = {
    "saved-model": "saved_model.pb", "gguf": "model.gguf", "flax": "flax_model.msgpack", "tf-weights": "tf_model.h5",
    "coreml": "m.mlmodel", "tflite": "m.tflite", "checkpoints": "checkpoint-10/x", "unknown-folder": "notes.txt",
    "hub-cache": "snapshots/a/x", "sentence-transformers": "modules.json",
}  # fmt: skip
FILES = {
    "gguf": b"GGUF\x03\x00\x00\x00", "hdf5": b"\x89HDF\r\n\x1a\n", "tflite": b"\x1c\x00\x00\x00TFL3",
    "image": b"\x89PNG\r\n",
    "archive": b"\x1f\x8b\x08\x00", "pickle": b"\x80\x04\x95", "onnx": ONNX, "safetensors": SAFETENSORS,
}  # fmt: skip


def folder(path: Path, config: dict[str, Any], **files: bytes) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    for name, content in files.items():
        (path / name.replace("__", "/").replace("_DOT_", ".")).write_bytes(content)
    return path


def kind(path: Path) -> str:
    seen = look(path)
    assert seen is not None
    return seen.kind.key


@pytest.mark.parametrize(("key", "config"), CONFIGS.items(), ids=CONFIGS)
def test_config_names_the_kind(tmp_path: Path, key: str, config: dict[str, Any]) -> None:
    assert kind(folder(tmp_path, config, model_DOT_safetensors=SAFETENSORS)) == key


@pytest.mark.parametrize(("key", "name"), FOLDERS.items(), ids=FOLDERS)
def test_folder_without_a_usable_config_is_named(tmp_path: Path, key: str, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"content")
    if key == "hub-cache":
        (tmp_path / "blobs").mkdir()
    if key in ("flax", "tf-weights"):
        folder(tmp_path, CONFIGS["image-classifier"])
    assert kind(tmp_path) == key
    with pytest.raises(UnusableInput, match="Fix: ") as caught:
        first_look(tmp_path, ModelOptions())
    assert KINDS[key].label in str(caught.value)


def test_empty_folder_and_config_without_weights_are_named(tmp_path: Path) -> None:
    assert kind(tmp_path) == "empty-folder"
    assert kind(folder(tmp_path, CONFIGS["image-classifier"])) == "no-weights"


@pytest.mark.parametrize(("key", "content"), FILES.items(), ids=FILES)
def test_content_of_a_file_names_the_kind(tmp_path: Path, key: str, content: bytes) -> None:
    suffix = f".{key}" if key in ("onnx", "safetensors") else ".model"
    (tmp_path / f"m{suffix}").write_bytes(content)
    assert kind(tmp_path / f"m{suffix}") == key


@pytest.mark.parametrize(
    ("member", "key"), [("m/constants.pkl", "torchscript"), ("m/data.pkl", "pickle"), ("a.txt", "archive")]
)
def test_zip_archive_is_named_by_its_members(tmp_path: Path, member: str, key: str) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr(member, "x")
    assert kind(tmp_path / "m.zip") == key


def test_content_under_the_suffix_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(ONNX)
    with pytest.raises(UnusableInput, match=r"rename it to \.onnx"):
        look(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer: run `git lfs pull`"),
        (b"/annex/objects/SHA256E-s5--1\n", "git annex get"),
        (b"# xet version 0\nfilesize = 3\n", "Xet pointer"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "failed download"),
        (b"../../blobs/abc", "link stored as text"),
        (b"", "empty file"),
    ],
)
@pytest.mark.parametrize("name", ["m.onnx", "m.safetensors", "config.json", "adapter_config.json"])
def test_placeholder_is_refused_with_its_way_out(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnusableInput, match=message):
        look(tmp_path / name)
    with pytest.raises(UnusableInput, match=message):
        look(tmp_path)


def test_pointer_in_place_of_weights_is_refused(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\n"
    with pytest.raises(UnusableInput, match="git lfs pull"):
        look(folder(tmp_path, CONFIGS["image-classifier"], model_DOT_safetensors=pointer))


def test_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.onnx")
    with pytest.raises(UnusableInput, match="a pipe"):
        look(tmp_path / "m.onnx")


@pytest.mark.parametrize("place", ["model_DOT_onnx", "onnx__model_DOT_onnx"])
def test_optimum_folder_leads_to_its_onnx_file(tmp_path: Path, place: str) -> None:
    (tmp_path / "onnx").mkdir()
    seen = look(folder(tmp_path, CONFIGS["image-classifier"], **{place: ONNX}))
    assert seen is not None
    assert (seen.kind.key, seen.kind.reader) == ("optimum", "onnx")
    assert seen.model is not None
    assert seen.model.name == "model.onnx"


def test_several_onnx_files_are_no_choice(tmp_path: Path) -> None:
    seen = look(folder(tmp_path, CONFIGS["image-classifier"], model_DOT_onnx=ONNX, model_int8_DOT_onnx=ONNX))
    assert seen is not None
    with pytest.raises(UnusableInput, match=r"several models \(model.onnx, model_int8.onnx\)"):
        seen.refuse()


def test_further_models_in_a_folder_are_noted(tmp_path: Path) -> None:
    made = folder(tmp_path, CONFIGS["image-classifier"], model_DOT_safetensors=SAFETENSORS, model_DOT_onnx=ONNX)
    seen = look(made)
    assert seen is not None
    assert "not examined: model.onnx" in seen.notes[0]


def test_options_open_the_kinds_that_need_them(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "a/b"}')
    with pytest.raises(UnusableInput, match="its base is 'a/b'"):
        first_look(tmp_path, ModelOptions())
    assert first_look(tmp_path, ModelOptions(), base=True) is not None
    labels = folder(tmp_path / "labels", CONFIGS["multi-label"], model_DOT_safetensors=SAFETENSORS)
    with pytest.raises(UnusableInput, match="multi-label"):
        first_look(labels, ModelOptions())
    assert first_look(labels, ModelOptions(features=True)) is not None


def test_multi_label_onnx_file_is_refused_by_the_config_next_to_it(tmp_path: Path) -> None:
    made = folder(tmp_path, CONFIGS["multi-label"], model_DOT_onnx=ONNX)
    for path in (made, made / "model.onnx"):
        with pytest.raises(UnusableInput, match="multi-label"):
            first_look(path, ModelOptions())


def test_text_classifier_without_reference_models_is_inconclusive_at_once(tmp_path: Path) -> None:
    made = folder(tmp_path, CONFIGS["text-classifier"], model_DOT_safetensors=SAFETENSORS)
    with pytest.raises(Inconclusive, match="never clear a model"):
        first_look(made, ModelOptions(), decided=False)
    assert first_look(made, ModelOptions()) is not None


def test_tests_named_for_text_classifiers_exist() -> None:
    from assay.detectors import default_detectors

    assert {test.name for test in default_detectors() if test.modality is None} == set(TEXT_TESTS)


def test_hub_id_has_no_kind() -> None:
    assert look("owner/name") is None


def test_first_look_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    made = folder(tmp_path, CONFIGS["causal-lm"], model_DOT_safetensors=SAFETENSORS)
    code = (
        "import sys\nfrom assay.kinds import look\n"
        f"look({str(made)!r})\nprint({{'torch', 'transformers', 'onnx', 'numpy'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_kind_without_a_reader_has_a_way_out() -> None:
    assert all(kind.fix for kind in KINDS.values() if kind.reader is None)


def test_header_that_begins_like_a_pickle_is_still_safetensors(tmp_path: Path) -> None:
    header = b"{" + b" " * 638 + b"}"  # 640 is 0x0280: the bytes 80 02
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert path.read_bytes().startswith(b"\x80\x02")
    seen = look(path)
    assert seen is not None
    assert seen.kind.key == "safetensors"
