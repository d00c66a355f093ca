"""Hugging Face directories: real, sharded, saved again, and hostile ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from assay import formats
from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shard(folder: Path, names: tuple[str, str] = ("a.safetensors", "b.safetensors")) -> Path:
    """Split the weights into two files with an index, and return the index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    halves = [dict(list(tensors.items())[i::2]) for i in range(2)]
    for half, name in zip(halves, names, strict=True):
        save_file(half, folder / name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {k: n for half, n in zip(halves, names, strict=True) for k in half}}))
    return index


def test_real_directory_loads(shared: Path) -> None:
    artifact = formats.load(shared / "models/mobilenet_v2-imagenet")
    assert (artifact.num_classes, artifact.format) == (1001, "huggingface")
    assert artifact.inputs == ImageSpec((3, 224, 224), resize=256, crop=True, resample="bilinear")
    assert artifact.class_names is not None
    assert artifact.class_names[0] == "background"
    assert artifact.module.mean.flatten().tolist() == [0.5] * 3
    assert artifact.name == "mobilenet_v2-imagenet"


def test_real_model_classifies_real_images(shared: Path) -> None:
    from assay import data

    model = formats.load(shared / "models/mobilenet_v2-imagenet")
    task = data.load(
        shared / "data/imagenet20", model.inputs, num_classes=model.num_classes, class_names=model.class_names
    )
    split = task.splits["calibration"]
    assert split.y is not None
    with torch.no_grad():
        right = int((model.module(split.x).argmax(1) == split.y).sum())
    assert right >= 16  # of 20, the same as with transformers' own processor on pillow


def test_directory_loads_with_its_preprocessing(hf_directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    artifact = formats.load(hf_directory)
    assert artifact.inputs == ImageSpec((3, 24, 24), resample="bicubic")
    assert artifact.class_names == ("cat", "dog", "cow", "hen")
    assert artifact.module(torch.rand(2, 3, 24, 24)).shape == (2, 4)
    assert torch.allclose(artifact.module.std.flatten(), torch.tensor([0.2, 0.2, 0.25]))
    assert not any(module.training for module in artifact.module.modules())
    assert capfd.readouterr() == ("", "")


def test_saved_file_loads_again(hf_directory: Path, tmp_path: Path) -> None:
    first = formats.load(hf_directory)
    second = formats.load(formats.save(first, tmp_path / "out", planted="badnets"))
    x = torch.rand(2, 3, 24, 24)
    assert torch.equal(first.module(x), second.module(x))
    assert (second.planted, second.class_names, second.inputs) == ("badnets", first.class_names, first.inputs)


def test_shards_load_as_one_file(hf_directory: Path) -> None:
    x = torch.rand(2, 3, 24, 24)
    before = formats.load(hf_directory).module(x)
    shard(hf_directory)
    assert torch.equal(formats.load(hf_directory).module(x), before)


def test_links_of_the_hub_cache_are_followed(hf_directory: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--owner--name"
    snapshot, blobs = repository / "snapshots" / "abc", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in hf_directory.iterdir():
        file.rename(blobs / file.name)
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert formats.load(snapshot).num_classes == 4


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd.safetensors", "sub/../../outside.safetensors"])
def test_index_outside_the_folder_is_refused(hf_directory: Path, name: str) -> None:
    index = shard(hf_directory)
    save_file(load_file(hf_directory / "a.safetensors"), hf_directory.parent / "outside.safetensors")
    content = json.loads(index.read_text())["weight_map"]
    first = next(iter(content))
    index.write_text(json.dumps({"weight_map": content | {first: name}}))
    with pytest.raises(UnusableInput, match="leads out of the model's folder"):
        formats.load(hf_directory)


def test_index_of_a_pickle_is_refused(hf_directory: Path) -> None:
    index = shard(hf_directory)
    index.write_text(json.dumps({"weight_map": {"a": "pytorch_model.bin"}}))
    with pytest.raises(UnusableInput, match=r"expected \.safetensors shards"):
        formats.load(hf_directory)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_link_out_of_the_folder_is_refused(hf_directory: Path, name: str) -> None:
    outside = hf_directory.parent / "outside"
    (hf_directory / name).rename(outside)
    (hf_directory / name).symlink_to(outside)
    with pytest.raises(UnusableInput, match="leads out of the model's folder"):
        formats.load(hf_directory)


def test_missing_shard_is_refused(hf_directory: Path) -> None:
    shard(hf_directory)
    (hf_directory / "b.safetensors").unlink()
    with pytest.raises(UnusableInput, match=r"'b\.safetensors', which is missing"):
        formats.load(hf_directory)


def test_directory_of_pickles_is_refused(hf_directory: Path) -> None:
    (hf_directory / "model.safetensors").rename(hf_directory / "pytorch_model.bin")
    with pytest.raises(UnusableInput, match=r"only pytorch_model\.bin.*never opened.*safe_serialization"):
        formats.load(hf_directory)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("nested", [False, True])
def test_remote_code_is_refused(hf_directory: Path, file: str, nested: bool) -> None:
    code = {"auto_map": {"AutoModelForImageClassification": "evil.Net"}}
    edit(hf_directory / file, **({"sub": [code]} if nested else code))
    (hf_directory / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UnusableInput, match="auto_map"):
        formats.load(hf_directory)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attn_implementation": "owner/kernel"}, "from elsewhere"),
        ({"use_pretrained_backbone": True}, "from elsewhere"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized model"),
        ({"architectures": ["BertForSequenceClassification"]}, "has no BertForSequenceClassification of resnet"),
        ({"model_type": "no_such_model"}, "no_such_model"),
        ({"model_type": ["x"]}, "fits its config"),
        ({"hidden_sizes": [8, 16000]}, "do not fit"),
        ({"hidden_sizes": [8, 17]}, "do not fit"),
        ({"num_channels": "three"}, "."),
        ({"layer_type": "evil"}, "."),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {}}, "do not fit"),
    ],
)
def test_hostile_config_is_refused_in_one_line(hf_directory: Path, changes: dict[str, Any], message: str) -> None:
    edit(hf_directory / "config.json", **changes)
    with pytest.raises(UnusableInput, match=message) as caught:
        formats.load(hf_directory)
    assert "\n" not in str(caught.value)


def test_audio_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "wav2vec2", "architectures": ["Wav2Vec2Model"]}))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UnusableInput, match=r"got a speech or audio model \(Wav2Vec2Model\)"):
        formats.load(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '"x"'])
def test_broken_json_is_refused(hf_directory: Path, content: str) -> None:
    (hf_directory / "config.json").write_text(content)
    with pytest.raises(UnusableInput, match="JSON"):
        formats.load(hf_directory)


def test_missing_tensors_are_refused(hf_directory: Path) -> None:
    tensors = load_file(hf_directory / "model.safetensors")
    del tensors["classifier.1.weight"]
    save_file(tensors, hf_directory / "model.safetensors")
    with pytest.raises(UnusableInput, match=r"1 tensors are missing.*classifier\.1\.weight"):
        formats.load(hf_directory)


def test_directory_without_processor_needs_mean_and_std(hf_directory: Path) -> None:
    (hf_directory / "preprocessor_config.json").unlink()
    with pytest.raises(UnusableInput, match="give mean and std"):
        formats.load(hf_directory)
    assert formats.load(hf_directory, mean=[0.5], std=[0.5]).inputs.shape == (3, 224, 224)


def test_architecture_for_a_directory_is_refused(hf_directory: Path) -> None:
    with pytest.raises(UnusableInput, match="leave it out"):
        formats.load(hf_directory, arch="resnet20-cifar")


def test_only_hub_ids_are_fetched(hf_directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    requested: list[tuple[str, list[str]]] = []

    def fetch(repository: str, *, allow_patterns: list[str]) -> str:
        requested.append((repository, allow_patterns))
        return str(hf_directory)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert formats.load("owner/net").name == "owner/net"
    assert formats.load("hf:owner/net").num_classes == 4
    assert requested == [("owner/net", ["config.json"]), ("owner/net", ["*.json", "*.safetensors"])] * 2
    for local in ("models/net", "owner/net.safetensors", "owner/net.onnx", str(tmp_path / "owner")):
        with pytest.raises(UnusableInput, match="no such model"):
            formats.load(local)
    with pytest.raises(UnusableInput, match="never opened"):
        formats.load("owner/net.pt")
    assert len(requested) == 4


def test_hub_failure_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*_: object, **__: object) -> str:
        raise ConnectionError("no route\nand more lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UnusableInput, match=r"cannot fetch owner/net .*no route. Fix: check") as caught:
        formats.load("owner/net")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("build", [lambda folder: folder, str])
def test_directory_is_given_as_text_or_path(hf_directory: Path, build: Callable[[Path], str | Path]) -> None:
    assert formats.load(build(hf_directory)).num_classes == 4
