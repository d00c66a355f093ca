"""Tests of foreign data files: special images, damaged and hostile files, unused parts."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.lib import format as npy
from PIL import Image

from assay import data
from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec
from assay.data.foreign import one_line_errors
from assay.data.images import decode_image
from assay.data.readers.parquet import only_texts
from tests.data.test_labels import folders, table

SPEC = ImageSpec((3, 8, 8))
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"

# Images


def jpeg_with_exif(exif: bytes) -> bytes:
    image = Image.new("RGB", (16, 8))
    image.paste((255, 255, 255), (0, 0, 8, 8))  # left half white
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif, quality=95)
    return buffer.getvalue()


def exif_of(orientation: int, *, bad_rational: bool) -> bytes:
    """Return EXIF data with an orientation, and on request a signed rational of denominator 0."""
    entries = [struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)]
    if bad_rational:
        entries.append(struct.pack("<HHII", 0x9201, 10, 1, 8 + 2 + 24 + 4))
    body = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    return b"Exif\0\0II*\0\x08\0\0\0" + body + struct.pack("<ii", -1, 0)


@pytest.mark.parametrize("bad_rational", [False, True])
def test_exif_orientation_rotates_and_the_rest_is_ignored(bad_rational: bool) -> None:
    spec = ImageSpec((1, 8, 8))
    plain = decode_image(jpeg_with_exif(exif_of(1, bad_rational=bad_rational)), spec, "p")
    turned = decode_image(jpeg_with_exif(exif_of(3, bad_rational=bad_rational)), spec, "p")
    assert plain[0, :, 0].mean() > 0.9 > 0.1 > plain[0, :, 7].mean()
    assert torch.allclose(turned, plain.flip(2).flip(1), atol=0.05)


@pytest.mark.parametrize("error", [ZeroDivisionError, struct.error, RecursionError, BaseException])
def test_any_error_of_a_decoder_is_one_line(error: type[BaseException]) -> None:
    with (
        pytest.raises(UnusableInput, match=r"a\.png: is not a readable image \(.*first"),
        one_line_errors("a.png", "a readable image"),
    ):
        raise error("first\nsecond")
    with pytest.raises(KeyboardInterrupt), one_line_errors("a.png", "a readable image"):
        raise KeyboardInterrupt


def test_float_images_are_scaled_or_refused_by_name(tmp_path: Path) -> None:
    for name, high in (("a", 0.5), ("b", 200.0), ("c", float("nan"))):
        Image.fromarray(np.full((8, 8), high, np.float32)).save(tmp_path / f"{name}.tif")
    assert decode_image(tmp_path / "a.tif", SPEC, "a").mean() == pytest.approx(0.5, abs=0.01)
    for name in "bc":
        with pytest.raises(UnusableInput, match=rf"{name}\.tif: expected float pixels in \[0, 1\]"):
            decode_image(tmp_path / f"{name}.tif", SPEC, f"{name}.tif")
    Image.fromarray(np.full((8, 8), 200, np.int32)).save(tmp_path / "d.tif")
    with pytest.raises(UnusableInput, match="expected pixels of 8 or 16 bits, got 32 bits"):
        decode_image(tmp_path / "d.tif", SPEC, "d.tif")


def test_alpha_and_frames_are_noted_with_counts(tmp_path: Path) -> None:
    for index in range(3):
        Image.new("LA", (8, 8), (9, 9)).save(tmp_path / f"{index}.png")
    frames = [Image.new("RGB", (8, 8), (60 * index, 0, 0)) for index in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    notes = data.load(tmp_path, SPEC).notes
    assert "3 images have an alpha channel: transparency is ignored" in notes
    assert "1 images have several frames: the first one is used" in notes


@pytest.mark.parametrize("name", ["a.JPG", "a.jfif", "a.Jpeg", "a.TIF", "a.PNG"])
def test_suffixes_of_images_are_known(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / name, "PNG")
    assert len(data.load(tmp_path, SPEC).splits["calibration"]) == 1


# Folders


def test_unused_files_are_counted(tmp_path: Path) -> None:
    folders(tmp_path, {"ant": 0, "bee": 1})
    for name in ("a.csv", "ant/b.txt", "ant/c.mp4", "bee/.hidden", "loose.png", "bee/below/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name, "PNG")
    os.mkfifo(tmp_path / "bee" / "pipe.png")
    (tmp_path / "bee" / "zero.png").symlink_to("/dev/zero")
    assert sorted(data.load(tmp_path, SPEC).summary.left_out) == [
        "files of other kinds (.csv, .txt, .mp4): 3",
        "hidden files: 1",
        "images in other places: 2",
        "pipes, devices and broken links: 2",
    ]


def test_table_next_to_unlabelled_images_is_not_read(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("a.png,3\n")
    assert "labels.csv is not read" in data.load(tmp_path, SPEC).notes[0]


def test_classes_called_like_splits_are_classes(tmp_path: Path) -> None:
    task = data.load(folders(tmp_path, {"bus": 0, "train": 1}), SPEC, num_classes=2)
    assert task.class_names == ("bus", "train")


def test_folders_of_one_split_under_two_names_are_refused(tmp_path: Path) -> None:
    for name in ("val", "validation"):
        folders(tmp_path / name, {"a": 0, "b": 1})
    with pytest.raises(UnusableInput, match="one folder for each split, got val, validation"):
        data.load(tmp_path, SPEC)


@pytest.mark.parametrize("name", ["a.png", "train.parquet", "set.npz"])
def test_pointers_name_their_command(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(POINTER)
    with pytest.raises(UnusableInput, match="this is a Git LFS pointer: run `git lfs pull`"):
        data.load(path if name == "set.npz" else tmp_path, SPEC)


def test_missing_linked_image_names_its_command(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("../.git/annex/objects/x")
    with pytest.raises(UnusableInput, match="git annex get"):
        data.load(tmp_path, SPEC)


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.npy", "numpy.savez"), ("x.png", "give its folder"), ("x.zip", "unpack it"), ("x.csv", "parquet")],
)
def test_files_of_other_kinds_get_advice(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UnusableInput, match=message):
        data.load(tmp_path / name, SPEC)


@pytest.mark.parametrize("name", ["data", "x.npz", "x.parquet"])
def test_pipes_and_devices_do_not_hang(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UnusableInput, match="pipe"):
        data.load(tmp_path / name, SPEC)
    if name.endswith(".parquet"):
        with pytest.raises(UnusableInput, match="pipe"):
            data.load(tmp_path, SPEC)
        assert not only_texts(tmp_path)


# Parquet


def test_several_configurations_are_refused_and_folders_of_splits_are_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        table(tmp_path / "small" / split / "0000.parquet", [0, 1] * 50)
    assert set(data.load(tmp_path, SPEC).splits) == {"train", "calibration", "test"}
    assert set(data.load(tmp_path / "small", SPEC).splits) == {"train", "calibration", "test"}
    table(tmp_path / "large" / "train.parquet", [0, 1])
    with pytest.raises(UnusableInput, match=r"got several folders of them \(large, small\)"):
        data.load(tmp_path, SPEC)


def test_files_of_one_split_share_their_columns(tmp_path: Path) -> None:
    table(tmp_path / "train-1.parquet", [0, 1])
    pq.write_table(pq.read_table(tmp_path / "train-1.parquet").drop_columns(["label"]), tmp_path / "train-2.parquet")
    with pytest.raises(UnusableInput, match=r"train-2\.parquet: expected the column 'label' of train-1\.parquet"):
        data.load(tmp_path, SPEC)


def test_several_image_columns_are_noted(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", [0, 1])
    content = pq.read_table(path)
    pq.write_table(pa.table({"mask": content["image"], "image": content["image"], "label": content["label"]}), path)
    assert "the column 'image' is read; 'mask' could hold samples too" in data.load(path, SPEC).notes


def test_several_image_columns_without_a_usual_name_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", [0, 1])
    content = pq.read_table(path)
    columns = {"left": content["image"], "right": content["image"], "label": content["label"]}
    pq.write_table(pa.table(columns), path)
    with pytest.raises(UnusableInput, match=r"got 'left', 'right'. Fix: keep one of them in the table, or name it"):
        data.load(path, SPEC)
    pq.write_table(pa.table({"file": content["image"], "right": content["image"], "label": content["label"]}), path)
    assert "the column 'right' is read; 'file' could hold samples too" in data.load(path, SPEC).notes


def test_damaged_parquet_pages_are_one_line(tmp_path: Path) -> None:
    path = table(tmp_path / "train.parquet", [0, 1] * 20)
    content = bytearray(path.read_bytes())
    content[4:80] = b"\xff" * 76
    path.write_bytes(bytes(content))
    with pytest.raises(UnusableInput) as error:
        data.load(path, SPEC)
    assert "\n" not in str(error.value)
    assert "train.parquet" in str(error.value)


# Arrays


def write_npz(path: Path, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)
    return path


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    buffer = io.BytesIO()
    npy.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


IMAGES = header((2, 8, 8)) + bytes(128)
DAMAGED: dict[str, tuple[dict[str, bytes], str]] = {
    "no array": ({"x": b"hello", "y": b"x"}, "array 'x': is not readable"),
    "huge shape": ({"x": header((10**9, 8, 8))}, "expected 64000000000 bytes for the shape"),
    "negative shape": ({"x": header((-2, 8, 8)) + bytes(128)}, "array 'x'"),
    "cut": ({"x": IMAGES[:-1]}, "expected 128 bytes for the shape"),
    "objects": ({"x": header((2, 8, 8), "|O") + bytes(1024)}, "got an array of objects"),
    "object labels": ({"x": IMAGES, "y": header((2,), "|O") + bytes(16)}, "got an array of objects"),
    "brackets": ({"x": b"\x93NUMPY\x02\x00\xf4\x01\x00\x00" + b"{" * 500}, "array 'x': is not readable"),
    "large label": ({"x": IMAGES, "y": header((2,), "<i8") + struct.pack("<qq", 0, 2**40)}, "below 1,000,000"),
}


@pytest.mark.parametrize(("entries", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_arrays_are_one_line(tmp_path: Path, entries: dict[str, bytes], message: str) -> None:
    with pytest.raises(UnusableInput, match=message) as error:
        data.load(write_npz(tmp_path / "set.npz", **entries), SPEC)
    assert "\n" not in str(error.value)


def test_bombs_are_refused_before_they_unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.data.readers.npz.BOMB_BYTES", 10_000)
    path = write_npz(tmp_path / "set.npz", x=header((20_000, 8, 8)) + bytes(64 * 20_000))
    with pytest.raises(UnusableInput, match="expected array 'x' compressed at most 200 to 1"):
        data.load(path, SPEC, limit=3)


@pytest.mark.parametrize("order", ["C", "F"])
def test_requested_rows_are_the_same_in_any_order_of_axes(tmp_path: Path, order: str) -> None:
    x = np.arange(100, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 8, 8), np.uint8)
    np.savez_compressed(tmp_path / "set.npz", x=np.asarray(x, order=order), y=np.arange(100))
    part = data.load(tmp_path / "set.npz", SPEC, limit=20).splits["calibration"]
    assert part.y is not None
    assert torch.equal((part.x[:, 0, 0, 0] * 255).round().long(), part.y)


def test_npz_arrays_without_use_are_noted(tmp_path: Path) -> None:
    images, labels = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), dtype=np.uint8), np.array([0, 1, 0, 1])
    np.savez(tmp_path / "a.npz", x=images, target=labels)
    assert "Fix if one of them holds the classes: name it" in data.load(tmp_path / "a.npz", SPEC).notes[0]
    assert data.load(tmp_path / "a.npz", SPEC, label_column="target").notes == ()
    np.savez(tmp_path / "b.npz", x=images, images=images, y=labels, labels=labels)
    notes = data.load(tmp_path / "b.npz", SPEC).notes
    assert [note.split("'")[1] for note in notes if "is not used" in note] == ["images", "labels"]
