"""Tests of loading data: all layouts, and all errors in them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from assay import data
from assay.core.dataset import Split, Task
from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec
from assay.data.images import decode_image, resize_images
from assay.data.request import Request

SPEC = ImageSpec((3, 8, 8))
COLORS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]


def image(label: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", size, COLORS[label % 4]).convert(mode)


def encoded(label: int, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image(label).save(buffer, format)
    return buffer.getvalue()


def write_parquet(path: Path, labels: list[Any], *, names: list[str] | None = None, rows: int = 7) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": encoded(label if isinstance(label, int) else 0), "path": None} for label in labels]
    table = pa.table({"img": cells, "label": labels})
    if names is not None:
        features = {"img": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=rows)


def class_folders(root: Path, names: list[str], count: int = 3) -> None:
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for index in range(count):
            image(label, (8 + index, 9)).save(root / name / f"{index}.png")


def color_of(x: torch.Tensor) -> tuple[int, ...]:
    return tuple((x.mean(dim=(1, 2)) * 255).round().int().tolist())


def assert_usable(task: Task, spec: ImageSpec = SPEC) -> None:
    assert "calibration" in task.splits
    for split in task.splits.values():
        assert split.x.shape[1:] == spec.shape
        assert split.x.dtype == torch.float32
        assert 0 <= split.x.min() <= split.x.max() <= 1
        if split.y is not None:
            assert split.y.dtype == torch.int64
            assert 0 <= split.y.min() <= split.y.max() < task.num_classes


# Parquet in the hub's layout


@pytest.mark.parametrize("folder", ["", "data", "plain_text"])
def test_parquet_keeps_splits_labels_and_images(tmp_path: Path, folder: str) -> None:
    write_parquet(tmp_path / folder / "train-00000-of-00002.parquet", [0, 1, 2] * 20, names=["a", "b", "c"])
    write_parquet(tmp_path / folder / "train-00001-of-00002.parquet", [2] * 10, names=["a", "b", "c"])
    write_parquet(tmp_path / folder / "test-00000-of-00001.parquet", [0, 1, 2] * 5, names=["a", "b", "c"])
    task = data.load(tmp_path, SPEC, num_classes=3)
    assert_usable(task)
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 56, "calibration": 14, "test": 15}
    assert (task.class_names, task.name) == (("a", "b", "c"), tmp_path.name)
    test = task.splits["test"]
    assert test.y is not None
    assert [color_of(x) for x in test.x] == [COLORS[label] for label in test.y.tolist()]


def test_limit_draws_balanced_samples(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-00000-of-00001.parquet", [0] * 60 + [1] * 60 + [2] * 20)
    task = data.load(tmp_path, SPEC, limit=12, seed=1)
    for name in ("train", "calibration"):
        y = task.splits[name].y
        assert y is not None
        assert y.bincount().tolist() == [4, 4, 4]


def test_word_labels_become_numbers_and_withheld_labels_none(tmp_path: Path) -> None:
    write_parquet(tmp_path / "words" / "test.parquet", ["cat", "ant", "cat", "bee"])
    task = data.load(tmp_path / "words", SPEC)
    assert task.class_names == ("ant", "bee", "cat")
    assert task.splits["calibration"].y is not None
    write_parquet(tmp_path / "held" / "test.parquet", [-1, -1])
    assert data.load(tmp_path / "held" / "test.parquet", SPEC).splits["calibration"].y is None


def test_parquet_of_texts_is_refused_for_an_image_model(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), tmp_path / "train.parquet")
    with pytest.raises(UnusableInput, match=r"expected a column of images .*, the model's inputs; got text"):
        data.load(tmp_path, SPEC)


def test_broken_parquet_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UnusableInput, match="not readable parquet"):
        data.load(tmp_path, SPEC)


def test_parquet_row_without_an_image_is_a_clear_error(tmp_path: Path) -> None:
    table = pa.table({"image": [{"bytes": None, "path": "/etc/passwd"}, {"bytes": b"x", "path": ""}], "label": [0, 1]})
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(UnusableInput, match="row 0 of 'image' holds no image"):
        data.load(tmp_path, SPEC)


def test_shared_gtsrb_loads_with_a_limit(shared: Path) -> None:
    task = data.load(shared / "data/gtsrb", ImageSpec((3, 32, 32)), num_classes=43, limit=86)
    assert_usable(task, ImageSpec((3, 32, 32)))
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 86, "calibration": 86, "test": 86}


def test_trained_model_is_accurate_on_loaded_cifar10(shared: Path) -> None:
    from assay import formats

    model = formats.load(shared / "models/resnet20-cifar10/model.safetensors", arch="resnet20-cifar")
    test = data.load(shared / "data/cifar10", model.inputs, num_classes=10, limit=200).splits["test"]
    assert test.y is not None
    with torch.no_grad():
        assert (model.module(test.x).argmax(1) == test.y).float().mean() > 0.85


# Folders


def test_class_folders_become_labels(tmp_path: Path) -> None:
    class_folders(tmp_path, ["bee", "ant", "cat"])
    task = data.load(tmp_path, SPEC, num_classes=3)
    assert_usable(task)
    assert task.class_names == ("ant", "bee", "cat")
    assert list(task.splits) == ["calibration"]  # too few to carve
    split = task.splits["calibration"]
    assert split.y is not None
    assert [color_of(x) for x in split.x] == [COLORS[{0: 1, 1: 0, 2: 2}[label]] for label in split.y.tolist()]


def test_split_folders_become_splits(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", ["ant", "bee", "cat"], 30)
    class_folders(tmp_path / "val", ["bee", "cat"], 2)
    task = data.load(tmp_path, SPEC)
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 72,
        "calibration": 18,
        "validation": 4,
    }
    y = task.splits["validation"].y
    assert y is not None
    assert y.tolist() == [1, 1, 2, 2]


def test_class_folders_match_the_names_of_the_model(tmp_path: Path) -> None:
    class_folders(tmp_path, ["zebra", "house_cat"])
    names = ("dog", "house cat, Felis", "zebra", "yak")
    split = data.load(tmp_path, SPEC, num_classes=4, class_names=names).splits["calibration"]
    assert split.y is not None
    assert split.y.unique().tolist() == [1, 2]
    with pytest.raises(
        UnusableInput,
        match=r"4 classes, the data has 2 \(house_cat, zebra\)\. Fix: name its folders",
    ):
        data.load(tmp_path, SPEC, num_classes=4)


def test_numbered_class_folders_are_labels(tmp_path: Path) -> None:
    class_folders(tmp_path, ["2", "10"])
    split = data.load(tmp_path, SPEC, num_classes=11).splits["calibration"]
    assert split.y is not None
    assert split.y.unique().tolist() == [2, 10]


def test_flat_folder_reads_labels_from_file_names(tmp_path: Path) -> None:
    for label in (3, 7):
        image(label).save(tmp_path / f"p_00_{label}.png")
    y = data.load(tmp_path, SPEC).splits["calibration"].y
    assert y is not None
    assert y.tolist() == [3, 7]
    image(0).save(tmp_path / "unlabelled.png")
    task = data.load(tmp_path, SPEC, num_classes=10)
    assert task.splits["calibration"].y is None
    assert task.num_classes == 10


NUMBERED = {
    "camera": ([f"IMG_{1000 + i}" for i in range(6)], 10, None, "up to 1005 and the model has 10"),
    "camera, gaps": ([f"IMG_{i:04}" for i in (12, 400, 871)], 1000, None, "count the images"),
    "a count": ([f"photo_{i}" for i in range(8)], 100, None, "count the images"),
    "one number": (["a_1", "b_1"], 10, None, "all the same"),
    "labels": (["000_3", "001_7", "002_3"], 10, [3, 7, 3], "read off the ends"),
    "padded labels": (["a_03", "b_07", "c_03"], 10, [3, 7, 3], "read off the ends"),
    "a label each": (["a_3", "b_70"], 100, [3, 70], "read off the ends"),
}


@pytest.mark.parametrize(("names", "classes", "labels", "note"), NUMBERED.values(), ids=NUMBERED)
def test_numbers_in_file_names_are_labels_only_if_plausible(
    tmp_path: Path, names: list[str], classes: int, labels: list[int] | None, note: str
) -> None:
    for name in names:
        image(0).save(tmp_path / f"{name}.png")
    task = data.load(tmp_path, SPEC, num_classes=classes)
    y = task.splits["calibration"].y
    assert (None if y is None else sorted(y.tolist())) == (None if labels is None else sorted(labels))
    assert note in task.notes[0]
    assert len(task.notes) == 1
    unlabelled = data.load(tmp_path, SPEC, num_classes=classes, labels=False)
    assert (unlabelled.splits["calibration"].y, unlabelled.notes) == (None, ())


def test_hidden_files_are_ignored(tmp_path: Path) -> None:
    class_folders(tmp_path, ["ant", "bee"])
    for name in ("._x.png", "ant/._0.png", ".ipynb_checkpoints/0.png", "__MACOSX/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / ".DS_Store").touch()
    task = data.load(tmp_path, SPEC)
    assert (task.class_names, len(task.splits["calibration"])) == (("ant", "bee"), 6)
    assert len(data.load(tmp_path, SPEC, labels=False).splits["calibration"]) == 6
    write_parquet(tmp_path / "table" / "train.parquet", [0, 1])
    (tmp_path / "table" / "._train.parquet").write_bytes(b"no parquet")
    assert len(data.load(tmp_path / "table", SPEC).splits["calibration"]) == 2


def test_subfolders_of_other_names_need_labels_switched_off(tmp_path: Path) -> None:
    class_folders(tmp_path, ["2023", "2024/may"])
    with pytest.raises(UnusableInput, match="labels=False"):
        data.load(tmp_path, SPEC, num_classes=10)
    task = data.load(tmp_path, SPEC, num_classes=10, labels=False)
    assert (len(task.splits["calibration"]), task.splits["calibration"].y) == (6, None)


def test_single_folder_is_not_a_class(tmp_path: Path) -> None:
    class_folders(tmp_path, ["thumbnails"])
    task = data.load(tmp_path, SPEC, num_classes=4, class_names=("ant", "bee", "cat", "dog"))
    assert (len(task.splits["calibration"]), task.splits["calibration"].y) == (3, None)
    assert "only folder (thumbnails)" in task.notes[0]
    with pytest.raises(UnusableInput, match="at least two classes"):
        data.load(tmp_path, SPEC, num_classes=2, class_names=("thumbnails", "others"))
    image(0).save(tmp_path / "beside.png")
    assert len(data.load(tmp_path, SPEC, num_classes=4).splits["calibration"]) == 1


def test_link_to_a_parent_folder_repeats_no_image(tmp_path: Path) -> None:
    class_folders(tmp_path, ["a", "b"], count=1)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    task = data.load(tmp_path, SPEC, num_classes=10, labels=False)
    assert len(task.splits["calibration"]) == 2


def test_alphabetical_class_numbers_give_a_note(tmp_path: Path) -> None:
    class_folders(tmp_path, ["bee", "ant"])
    assert "ant as class 0 to bee as class 1" in data.load(tmp_path, SPEC, num_classes=2).notes[0]
    assert data.load(tmp_path, SPEC, num_classes=2, class_names=("bee", "ant")).notes == ()


def test_imagenet_labels_shift_for_a_background_class(tmp_path: Path) -> None:
    for label in (0, 999):
        image(label).save(tmp_path / f"p_{label}.png")
    names = ("background", *(f"class {index}" for index in range(1000)))
    y = data.load(tmp_path, SPEC, num_classes=1001, class_names=names).splits["calibration"].y
    assert y is not None
    assert y.tolist() == [1, 1000]


def test_empty_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match=r"expected images .* none found"):
        data.load(tmp_path, SPEC)
    (tmp_path / "train").mkdir()
    with pytest.raises(UnusableInput, match="none found"):
        data.load(tmp_path, SPEC)


def test_single_class_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path, ["ant"])
    with pytest.raises(UnusableInput, match="at least two classes, got only class ant"):
        data.load(tmp_path, SPEC)


def test_labels_above_the_number_of_classes_are_refused(tmp_path: Path) -> None:
    class_folders(tmp_path, ["0", "12"])
    with pytest.raises(UnusableInput, match="expected labels below 10, the model's number of classes, got 12"):
        data.load(tmp_path, SPEC, num_classes=10)


def test_different_class_counts_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1, 2], names=["a", "b", "c"])
    with pytest.raises(UnusableInput, match="expected the model's 10 classes, the data has 3"):
        data.load(tmp_path, SPEC, num_classes=10)


@pytest.mark.parametrize("content", [b"\n", b"not an image", encoded(0)[:40]])
def test_broken_images_are_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a_1.png").write_bytes(content)
    with pytest.raises(UnusableInput, match=r"a_1\.png: is not a readable image"):
        data.load(tmp_path, SPEC)


@pytest.mark.parametrize("side", [9_000, 60_000])
def test_decompression_bombs_are_refused(tmp_path: Path, side: int) -> None:
    header = b"P5 %d %d 255\n" % (side, side)
    (tmp_path / "a_1.pgm").write_bytes(header)
    with pytest.raises(UnusableInput, match="expected an image of at most 64000000 pixels"):
        data.load(tmp_path, SPEC)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_image_modes_decode_to_the_channels_of_the_model(tmp_path: Path, mode: str) -> None:
    image(0, (20, 10), mode).save(tmp_path / "p.tif")
    for channels in (1, 3):
        assert decode_image(tmp_path / "p.tif", ImageSpec((channels, 6, 7)), "p").shape == (channels, 6, 7)


def test_sixteen_bit_gray_is_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(tmp_path / "p.png")
    assert decode_image(tmp_path / "p.png", ImageSpec((1, 4, 4)), "p").mean().item() == pytest.approx(0.5, abs=0.01)


# Resizing


@pytest.mark.parametrize(
    "spec",
    [
        ImageSpec((3, 6, 9)),
        ImageSpec((3, 8, 8), resize=10, crop=True),
        ImageSpec((3, 8, 8), resize=(12, 9), crop=True, resample="bicubic"),
        ImageSpec((3, 8, 8), crop=True),
        ImageSpec((3, 40, 50), resize=20, crop=True, resample="nearest"),
        ImageSpec((1, 5, 5), resample="lanczos"),
    ],
)
@pytest.mark.parametrize("size", [(16, 24), (24, 16), (7, 7)])
def test_files_and_arrays_are_resized_equally(spec: ImageSpec, size: tuple[int, int]) -> None:
    rows = torch.linspace(0, 1, size[0]).view(-1, 1, 1)
    columns = torch.linspace(0, 1, size[1]).view(1, -1, 1)
    array = ((rows + columns) / 2 * torch.tensor([1.0, 0.5, 0.25]) * 255).byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    file = decode_image(buffer.getvalue(), spec, "p")
    memory = resize_images(torch.from_numpy(array).permute(2, 0, 1).unsqueeze(0) / 255, spec)[0]
    assert file.shape == memory.shape == spec.shape
    assert (file - memory).abs().max() < (0.03 if spec.resample != "nearest" else 0.1)


def test_preprocessing_equals_the_transformers_processor(shared: Path) -> None:
    processors = pytest.importorskip("transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2")
    folder = shared / "models/mobilenet_v2-imagenet"
    processor = processors.MobileNetV2ImageProcessorPil(**json.loads((folder / "preprocessor_config.json").read_text()))
    file = sorted((shared / "data/imagenet20").iterdir())[0]
    expected = torch.from_numpy(processor([Image.open(file)], return_tensors="np")["pixel_values"][0])
    found = decode_image(file, ImageSpec((3, 224, 224), resize=256, crop=True), "p")
    assert torch.allclose(found * 2 - 1, expected, atol=1e-6)


# Arrays


@pytest.mark.parametrize("shape", [(90, 6, 6, 3), (90, 3, 6, 6), (90, 6, 6), (90, 6, 6, 1)])
@pytest.mark.parametrize("kind", ["uint8", "float32", "float64"])
def test_npz_layouts_and_dtypes_load(tmp_path: Path, shape: tuple[int, ...], kind: str) -> None:
    x = np.random.default_rng(0).random(shape)
    x = (x * 255).astype(np.uint8) if kind == "uint8" else x.astype(kind)
    np.savez(tmp_path / "set.npz", images=x, labels=np.arange(90) % 3)
    task = data.load(tmp_path / "set.npz", SPEC)
    assert_usable(task)
    assert (task.name, {name: len(split) for name, split in task.splits.items()}) == (
        "set",
        {"train": 72, "calibration": 18},
    )


def test_npz_arrays_by_split_load(tmp_path: Path) -> None:
    x, y = np.zeros((80, 8, 8, 3), np.uint8), np.arange(80).reshape(-1, 1) % 2
    np.savez(tmp_path / "set.npz", x_train=x, y_train=y, x_test=x[:5], y_test=y[:5])
    task = data.load(tmp_path / "set.npz", SPEC)
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 64, "calibration": 16, "test": 5}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.full((4, 8, 8), np.nan), "y": np.arange(4)}, "NaN or infinite"),
        ({"x": np.full((4, 8, 8), 255.0), "y": np.arange(4)}, r"got 255 to 255\. Fix: divide by 255, or save as uint8"),
        ({"x": np.full((4, 8, 8), -0.5), "y": np.arange(4)}, "undo any normalization"),
        ({"x": np.zeros((4, 8, 8), np.int64)}, "expected 'x' as uint8"),
        ({"x": np.zeros((4, 8), np.uint8)}, r"of shape \(N, H, W, C\)"),
        ({"x": np.zeros((4, 0, 8), np.uint8)}, r"of shape \(N, H, W, C\)"),
        ({"x": np.zeros((4, 8, 8, 2), np.uint8)}, "channels"),
        ({"x": np.zeros((0, 8, 8), np.uint8)}, "empty"),
        ({"x": np.zeros((4, 8, 8), np.uint8), "y": np.arange(5)}, "expected 4 whole numbers"),
        (
            {"x": np.zeros((4, 8, 8), np.uint8), "y": np.arange(4) / 2},
            "expected whole numbers or words as labels, got 0.5 in row 1",
        ),
        ({"x": np.zeros((4, 8, 8), np.uint8), "y": np.arange(4) - 1}, "expected labels from 0 on"),
        ({"x": np.zeros((4, 8, 8), np.uint8), "y": np.zeros(4, int)}, "at least two classes"),
        ({"x": np.array([np.zeros((8, 8)), np.zeros((9, 8))], dtype=object)}, "never loaded"),
        ({"z": np.zeros(3)}, "expected arrays x and y"),
    ],
)
def test_unusable_arrays_are_a_clear_error(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(UnusableInput, match=message):
        data.load(tmp_path / "set.npz", SPEC)


def test_broken_npz_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "set.npz").write_bytes(b"not a zip")
    with pytest.raises(UnusableInput, match=r"not a readable \.npz"):
        data.load(tmp_path / "set.npz", SPEC)


# Generated data, and data of the hub


@pytest.mark.parametrize(("source", "classes"), [("signs", 10), ("signs:37", 37), ("digits", 10)])
def test_generated_data_fits_the_request(source: str, classes: int) -> None:
    spec = ImageSpec((1, 20, 28))
    task = data.load(source, spec, num_classes=classes, limit=80)
    assert_usable(task, spec)
    assert task.num_classes == classes
    assert all(split.y is not None and len(split) <= 80 for split in task.splits.values())


def test_no_data_gives_unlabelled_signs() -> None:
    task = data.load(None, SPEC, num_classes=4, limit=30)
    assert_usable(task)
    assert all(split.y is None for split in task.splits.values())
    assert "no data given" in task.name


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("signs:x", "expected signs:<number of classes>"),
        ("signs:0", "expected signs:<number of classes>"),
        ("signs:1", "2 to 2000"),
        ("signs:20", "the model's 10 classes, the data has 20"),
        ("nothing", "no such data"),
        ("tests/nothing", "no such data"),
        ("owner/nothing.npz", "no such data"),
    ],
)
def test_unknown_sources_are_a_clear_error(source: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(UnusableInput, match=message):
        data.load(source, SPEC, num_classes=10)


def test_unreadable_sources_and_limits_are_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match="cannot read"):
        data.load("x" * 5000, SPEC)
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(UnusableInput, match=r"got a \.csv file"):
        data.load(tmp_path / "a.csv", SPEC)
    with pytest.raises(UnusableInput, match="at least 1 sample"):
        data.load("signs", SPEC, limit=0)


def test_hub_stream_reads_images_and_class_names(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    kinds = datasets.Features(
        {"image": datasets.Image(), "id": datasets.Value("int64"), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    rows = [{"image": {"bytes": encoded(i % 2), "path": None}, "id": i, "label": i % 2} for i in range(50)]
    stream = datasets.Dataset.from_list(rows, features=kinds).to_iterable_dataset()
    asked = []

    def fetch(name: str, configuration: str | None, *, streaming: bool) -> dict[str, Any]:
        asked.append((name, configuration, streaming))
        return {"train": stream, "test": stream}

    monkeypatch.setattr(datasets, "load_dataset", fetch)
    task = data.load("hf:owner/name:small", SPEC, num_classes=2, limit=10)
    assert asked == [("owner/name", "small", True)]
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 10, "calibration": 10, "test": 10}
    assert task.class_names == ("a", "b")
    test = task.splits["test"]
    assert test.y is not None
    assert [color_of(x) for x in test.x] == [COLORS[label] for label in test.y.tolist()]


def test_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route\nand more")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UnusableInput, match=r"cannot read the data set owner/name .*no route\. Fix: check") as caught:
        data.load("owner/name", SPEC)
    assert "\n" not in str(caught.value)


# Splits and limits


def test_calibration_split_has_no_overlap_with_train(tmp_path: Path) -> None:
    x = (np.arange(200, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)).astype(np.uint8)
    np.savez(tmp_path / "set.npz", x=x, y=np.arange(200) % 4)
    for limit in (None, 30, 100, 500):
        splits = data.load(tmp_path / "set.npz", ImageSpec((1, 8, 8)), limit=limit).splits
        train, calibration = (set(splits[name].x[:, 0, 0, 0].tolist()) for name in ("train", "calibration"))
        assert not train & calibration
        assert (len(train), len(calibration)) == {None: (160, 40), 30: (30, 30), 100: (100, 100), 500: (100, 100)}[
            limit
        ]


def test_stored_calibration_split_stays(tmp_path: Path) -> None:
    x, y = np.zeros((9, 8, 8), np.uint8), np.arange(9) % 2
    np.savez(tmp_path / "set.npz", x_calibration=x, y_calibration=y, x_train=x, y_train=y)
    assert {n: len(s) for n, s in data.load(tmp_path / "set.npz", SPEC).splits.items()} == {
        "train": 9,
        "calibration": 9,
    }


def test_split_larger_than_memory_needs_a_limit() -> None:
    with pytest.raises(UnusableInput, match="set a limit"):
        Request(ImageSpec((3, 1024, 1024)), None, 0).check_size(10_000)
    assert len(Request(ImageSpec((3, 1024, 1024)), 5, 0).choose(Split(torch.arange(10_000), None))) == 5


SAMPLED = ["parquet", "folder", "npz", "signs:4", "digits"]


def source_of(kind: str, folder: Path) -> str:
    """Return data of four classes and 200 different images in train and in test."""
    pixels = np.random.default_rng(0).integers(0, 255, (200, 8, 8, 3), np.uint8)
    labels = [0, 1, 2, 3] * 50
    if kind == "npz":
        np.savez(folder / "set.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
        return str(folder / "set.npz")
    if kind not in ("parquet", "folder"):
        return kind
    for split in ("train", "test"):
        cells = []
        for number, (label, array) in enumerate(zip(labels, pixels, strict=True)):
            file = folder / "images" / split / "abcd"[label] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(file)
            cells.append({"bytes": file.read_bytes(), "path": None})
        pq.write_table(pa.table({"img": cells, "label": labels}), folder / f"{split}.parquet", row_group_size=30)
    return str(folder / "images" if kind == "folder" else folder)


@pytest.mark.parametrize("kind", SAMPLED)
@pytest.mark.parametrize("labels", [True, False])
def test_clean_samples_are_a_draw_out_of_calibration(kind: str, labels: bool, tmp_path: Path) -> None:
    source = source_of(kind, tmp_path)
    spec = ImageSpec((1, 8, 8)) if kind == "digits" else SPEC
    whole = data.load(source, spec, limit=40, seed=3, labels=labels)
    drawn = data.load(source, spec, limit=40, seed=3, labels=labels, clean_samples=12)
    assert list(drawn.splits) == ["calibration"]
    assert drawn.splits["calibration"].digest() == whole.splits["calibration"].sample(12, seed=3).digest()
    assert drawn.summary == whole.summary


@pytest.mark.parametrize("kind", ["parquet", "folder"])
def test_only_the_clean_samples_are_decoded(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from assay.data import images

    source, decoded, decode = source_of(kind, tmp_path), [], images.decode_image
    monkeypatch.setattr(images, "decode_image", lambda *args: decoded.append(args) or decode(*args))
    data.load(source, SPEC, limit=40, clean_samples=12)
    assert len(decoded) == 12


def test_no_pandas_for_parquet(tmp_path: Path) -> None:
    code = (
        "import sys; from assay import data; from assay.core.model import ImageSpec; "
        f"data.load({source_of('parquet', tmp_path)!r}, ImageSpec((3, 8, 8))); assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
