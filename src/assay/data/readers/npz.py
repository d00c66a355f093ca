"""Reader of ``.npz`` files: arrays ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test``, ... for several splits."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.data.images import resize_images
from assay.data.request import MAX_SPLIT_BYTES, Request, Source, split_name

X_NAMES = ("x", "images", "image", "data", "X", "arr_0")
Y_NAMES = ("y", "labels", "label", "targets", "Y", "arr_1")
SPLITS = ("train", "calibration", "validation", "valid", "val", "test")


def read_npz(path: Path, request: Request) -> Source:
    """Read images (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or float in [0, 1], and labels (N,).

    Args:
        path: The file.
        request: The requested samples.
    """
    with _open(path) as arrays:
        pairs = _find_pairs(arrays.files)
        if not pairs:
            raise UnusableInput(
                f"{path}: expected arrays x and y, or x_train, y_train, x_test, ..., got {', '.join(arrays.files)}"
            )
        splits = {}
        for name, (x_name, y_name) in pairs.items():
            images = _channels_first(_array(arrays, x_name, path), path, x_name)
            labels = None if y_name is None else _read_labels(_array(arrays, y_name, path), len(images), path, y_name)
            index = request.of_split(name, list(pairs)).choose(len(images), labels)
            x = resize_images(_to_unit_range(images[index.numpy()], path, x_name), request.image_spec)
            splits[name] = Split(x, None if labels is None else labels[index])
    return Source(path.stem, splits)


def _open(path: Path) -> np.lib.npyio.NpzFile:
    try:
        if (size := sum(entry.file_size for entry in zipfile.ZipFile(path).infolist())) > 4 * MAX_SPLIT_BYTES:
            raise UnusableInput(f"{path}: expected at most {4 * MAX_SPLIT_BYTES} bytes of arrays, got {size}")
        return np.load(path, allow_pickle=False)
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise UnusableInput(f"{path}: is not a readable .npz file ({error})") from None


def _find_pairs(names: list[str]) -> Mapping[str, tuple[str, str | None]]:
    """Return the names of each split's arrays of images and labels."""
    pairs: dict[str, tuple[str, str | None]] = {}
    for split, ending in [("all", ""), *((name, f"_{name}") for name in SPLITS)]:
        x = next((name + ending for name in X_NAMES if name + ending in names), None)
        y = next((name + ending for name in Y_NAMES if name + ending in names), None)
        if x is not None:
            pairs[split_name(split)] = (x, y)
    return pairs


def _array(arrays: np.lib.npyio.NpzFile, name: str, path: Path) -> np.ndarray:
    try:
        return arrays[name]
    except ValueError:  # object arrays: images of mixed size, or a pickle
        raise UnusableInput(
            f"{path}: expected one array of images of one size as {name!r}, got an array of objects "
            "(images of mixed size?). Fix: use a folder of image files."
        ) from None
    except (OSError, zipfile.BadZipFile, EOFError, MemoryError) as error:
        raise UnusableInput(f"{path}: array {name!r} cannot be read ({error})") from None


def _channels_first(array: np.ndarray, path: Path, name: str) -> np.ndarray:
    """Return an array of images as (N, C, H, W)."""
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or 0 in array.shape[1:]:
        raise UnusableInput(f"{path}: expected {name!r} of shape (N, H, W, C) or (N, C, H, W), got {array.shape}")
    if array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    return array


def _to_unit_range(array: np.ndarray, path: Path, name: str) -> Tensor:
    """Return uint8 or floats in [0, 1] as float32 in [0, 1]."""
    if array.dtype == np.uint8:
        return torch.from_numpy(array.astype(np.float32) / 255)
    if array.dtype.kind != "f":
        raise UnusableInput(f"{path}: expected {name!r} as uint8 or as floats in [0, 1], got {array.dtype}")
    if not np.isfinite(array).all():
        raise UnusableInput(f"{path}: expected floats in [0, 1] in {name!r}, got NaN or infinite values")
    if array.size and (array.min() < 0 or array.max() > 1):
        raise UnusableInput(
            f"{path}: expected floats in [0, 1] in {name!r}, got {array.min():g} to {array.max():g}. "
            "Fix: undo any normalization, or save as uint8."
        )
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _read_labels(array: np.ndarray, count: int, path: Path, name: str) -> Tensor:
    array = array.squeeze(1) if array.ndim == 2 and array.shape[1] == 1 else array
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise UnusableInput(
            f"{path}: expected {count} whole numbers in {name!r}, got shape {array.shape} of {array.dtype}"
        )
    return torch.from_numpy(array.astype(np.int64))
