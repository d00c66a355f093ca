"""Reader of ``.npz`` files: arrays ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test``, ... for several splits.

The reader streams each array and keeps the requested rows only. A header cannot claim more than its file holds.
"""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.data.foreign import one_line_errors
from assay.data.images import resize_images
from assay.data.label_values import RawLabels, is_one_hot, number_labels, parse_labels
from assay.data.request import MAX_SPLIT_BYTES, Request, Source, split_name
from assay.io.files import check_plain_file

X_NAMES = ("x", "images", "image", "data", "X", "arr_0")
Y_NAMES = ("y", "labels", "label", "targets", "Y", "arr_1")
SPLITS = ("train", "calibration", "validation", "valid", "val", "test")

# Limits of one array: its size in memory, and the ratio of a bomb above 1 GiB.
MAX_LABEL_BYTES = 2**28
BOMB_RATIO, BOMB_BYTES = 200, 2**30

READABLE = "a readable .npz file"
OBJECTS = (
    "an array of objects, which is never loaded. Fix: save words with numpy.array(words, dtype=str), and images of "
    "mixed size as a folder of files"
)


@dataclass(frozen=True)
class _Array:
    """One array of the file: its header."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool  # order of the axes in the file

    @property
    def row_bytes(self) -> int:
        """Size of one entry along the first axis."""
        return self.dtype.itemsize * math.prod(self.shape[1:])


def read_npz(path: Path, request: Request) -> Source:
    """Read images (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or float in [0, 1], and labels (N,).

    Labels are whole numbers, words, or one-hot rows (N, K).

    Args:
        path: The file.
        request: The requested samples.

    Raises:
        UnusableInput: The file is damaged, or its arrays are no images and labels.
    """
    check_plain_file(path)
    with one_line_errors(path, READABLE), zipfile.ZipFile(path) as archive:
        arrays = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        pairs = _find_pairs(list(arrays), request.label_column)
        if not pairs:
            raise UnusableInput(
                f"{path}: expected arrays x and y, or x_train, y_train, x_test, ..., got {', '.join(arrays)}"
            )
        counts, raw = {}, dict[str, RawLabels | None]()
        for split, (x_name, y_name) in pairs.items():
            counts[split] = _image_shape(_header(archive, arrays[x_name], path), path)[0]
            raw[split] = None
            if y_name is not None and request.labels:
                raw[split] = _read_labels(archive, arrays[y_name], counts[split], path)

    def decode(split: str, rows: Tensor) -> tuple[Tensor, Counter[str]]:
        with one_line_errors(path, READABLE), zipfile.ZipFile(path) as archive:
            entry = arrays[pairs[split][0]]
            header = _header(archive, entry, path)
            images = _channels_first(_read_rows(archive, entry, header, rows.numpy()))
            return resize_images(_to_unit_range(images, path, header.name), request.image_spec), Counter()

    numbered = number_labels(raw, {})
    used = {name for pair in pairs.values() for name in pair}
    unused = sorted(set(arrays) - used) if request.labels else []
    left_out = Counter({f"other arrays ({', '.join(unused)[:200]})": len(unused)} if unused else {})
    left_out["samples without a label"] += sum(labels.missing for labels in raw.values() if labels is not None)
    named = next((y_name for _, y_name in pairs.values() if y_name), None)
    return Source(
        path.stem,
        {split: Split(torch.arange(count), numbered.labels[split]) for split, count in counts.items()},
        decode,
        numbered.class_names,
        numbered.names_from,
        kind=".npz file",
        labels_from="" if named is None or not any(raw.values()) else f"array {named!r}",
        totals=counts,
        notes=_choice_notes(list(arrays), pairs, request),
        left_out=+left_out,
    )


def _find_pairs(names: Sequence[str], label_column: str | None) -> Mapping[str, tuple[str, str | None]]:
    """Return the names of each split's arrays of images and labels."""
    pairs: dict[str, tuple[str, str | None]] = {}
    y_names = Y_NAMES if label_column is None else (label_column,)
    for split, ending in [("all", ""), *((name, f"_{name}") for name in SPLITS)]:
        x = next((name + ending for name in X_NAMES if name + ending in names), None)
        y = next((name + ending for name in y_names if name + ending in names), None)
        if x is not None and label_column is not None and y is None:
            raise UnusableInput(f"expected the array {label_column + ending!r} of labels, got {', '.join(names)}")
        if x is not None:
            pairs[split_name(split)] = (x, y)
    return pairs


def _choice_notes(
    names: Sequence[str], pairs: Mapping[str, tuple[str, str | None]], request: Request
) -> tuple[str, ...]:
    """Return notes on other arrays with a usual name, and on data without labels.

    Args:
        names: All arrays.
        pairs: Arrays of images and labels of each split.
        request: The requested samples.
    """
    used = {name for pair in pairs.values() for name in pair}
    usual = {*X_NAMES, *(() if request.label_column or not request.labels else Y_NAMES)}
    usual |= {f"{name}_{split}" for name in usual for split in SPLITS}
    notes = [f"the array {n!r} is not used: another one has a usual name, too" for n in names if n in usual - used]
    others = [name for name in names if name not in used | usual]
    if request.labels and others and all(y is None for _, y in pairs.values()):
        shown = ", ".join(map(repr, others[:12]))
        notes.append(
            f"no labels: none of the arrays {shown} has a usual name of labels. Fix if one of them holds the classes: "
            "name it without its split (label_column)"
        )
    return tuple(notes)


@contextmanager
def _opened(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> Iterator[tuple[IO[bytes], _Array]]:
    """Open one array, its header read and checked; object arrays are pickles and are never loaded."""
    name = entry.filename.removesuffix(".npy")
    with one_line_errors(f"{path}: array {name!r}", "readable"), archive.open(entry) as stream:
        version = npy.read_magic(stream)
        readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        if version not in readers:
            raise UnusableInput(f"{path}: expected array {name!r} in version 1 or 2 of the format, got {version}")
        shape, fortran, dtype = readers[version](stream)
        if dtype.hasobject:
            raise UnusableInput(f"{path}: expected {name!r} as numbers or texts, got {OBJECTS}.")
        size = dtype.itemsize * math.prod(shape)
        if size != entry.file_size - stream.tell():
            raise UnusableInput(
                f"{path}: expected {size} bytes for the shape {shape} of array {name!r}, "
                f"got {entry.file_size - stream.tell()}"
            )
        if size > BOMB_BYTES and size > BOMB_RATIO * max(1, entry.compress_size):
            raise UnusableInput(
                f"{path}: expected array {name!r} compressed at most {BOMB_RATIO} to 1, got {size} bytes out of "
                f"{entry.compress_size}"
            )
        yield stream, _Array(name, shape, dtype, fortran)


def _header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> _Array:
    with _opened(archive, entry, path) as (_, header):
        return header


def _read_rows(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, header: _Array, index: np.ndarray) -> np.ndarray:
    """Return the entries at ``index`` (ascending) along the first axis."""
    with _opened(archive, entry, Path(archive.filename or "")) as (stream, _):
        if header.fortran:
            if header.row_bytes * header.shape[0] > MAX_SPLIT_BYTES:
                raise UnusableInput(f"expected array {header.name!r} in C order above {MAX_SPLIT_BYTES >> 30} GiB")
            whole = np.frombuffer(stream.read(), header.dtype).reshape(header.shape, order="F")
            return whole[index]
        content = np.empty(len(index) * header.row_bytes, np.uint8)
        view, position = memoryview(content.data), 0
        for place, row in enumerate(index.tolist()):
            stream.seek((row - position) * header.row_bytes, 1)
            target = view[place * header.row_bytes : (place + 1) * header.row_bytes]
            filled = 0
            while filled < len(target):
                chunk = stream.read(len(target) - filled)
                if not chunk:
                    raise EOFError(f"array {header.name!r} ends early")
                target[filled : filled + len(chunk)] = chunk
                filled += len(chunk)
            position = row + 1
    return content.view(header.dtype).reshape(len(index), *header.shape[1:])


def _image_shape(header: _Array, path: Path) -> tuple[int, ...]:
    """Return the shape of an array of images; raise UnusableInput for another one."""
    if len(header.shape) not in (3, 4) or 0 in header.shape[1:]:
        raise UnusableInput(
            f"{path}: expected {header.name!r} of shape (N, H, W, C) or (N, C, H, W), got {header.shape}"
        )
    if header.dtype != np.uint8 and header.dtype.kind != "f":
        raise UnusableInput(f"{path}: expected {header.name!r} as uint8 or as floats in [0, 1], got {header.dtype}")
    return header.shape


def _channels_first(array: np.ndarray) -> np.ndarray:
    """Return an array of images as (N, C, H, W)."""
    if array.ndim == 3:
        array = array[:, None]
    if array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    return array


def _to_unit_range(array: np.ndarray, path: Path, name: str) -> Tensor:
    """Return uint8 or floats in [0, 1] as float32 in [0, 1]."""
    if array.dtype == np.uint8:
        return torch.from_numpy(array.astype(np.float32) / 255)
    if not np.isfinite(array).all():
        raise UnusableInput(f"{path}: expected floats in [0, 1] in {name!r}, got NaN or infinite values")
    if array.size and (array.min() < 0 or array.max() > 1):
        fix = "divide by 255" if array.min() >= 0 and array.max() <= 255 else "undo any normalization"
        raise UnusableInput(
            f"{path}: expected floats in [0, 1] in {name!r}, got {array.min():g} to {array.max():g}. "
            f"Fix: {fix}, or save as uint8."
        )
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _read_labels(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, count: int, path: Path) -> RawLabels | None:
    """Return the labels of one split: whole numbers, words, or one-hot rows."""
    header = _header(archive, entry, path)
    where = f"{path}: array {header.name!r}"
    if header.row_bytes * math.prod(header.shape[:1]) > MAX_LABEL_BYTES:
        raise UnusableInput(
            f"{where}: expected labels of at most {MAX_LABEL_BYTES >> 20} MiB, got shape {header.shape}"
        )
    if not header.shape or header.shape[0] != count or header.dtype.kind not in "iufbUS":
        raise UnusableInput(
            f"{path}: expected {count} whole numbers in {header.name!r}, got shape {header.shape} of {header.dtype}"
        )
    array = _read_rows(archive, entry, header, np.arange(count))
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if is_one_hot(array):
        array = array.argmax(1)
    if array.ndim != 1:
        raise UnusableInput(
            f"{path}: expected {count} whole numbers or one-hot rows in {header.name!r}, got shape {array.shape} "
            f"of {array.dtype}"
        )
    return parse_labels(array.tolist(), where)
