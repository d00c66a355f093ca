"""``.npz`` files: arrays ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test``, ... for several splits."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.data.images import fit
from assay.data.request import MAX_SPLIT_BYTES, Request, Source, split_name

X_NAMES = ("x", "images", "image", "data", "X", "arr_0")
Y_NAMES = ("y", "labels", "label", "targets", "Y", "arr_1")
SPLITS = ("train", "calibration", "validation", "valid", "val", "test")


def read_npz(path: Path, request: Request) -> Source:
    """Reads pictures (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or float in [0, 1], and labels (N,)."""
    with _open(path) as arrays:
        pairs = _pairs(arrays.files)
        if not pairs:
            raise UnusableInput(
                f"{path}: expected arrays x and y, or x_train, y_train, x_test, ..., came {', '.join(arrays.files)}"
            )
        splits = {}
        for name, (x_name, y_name) in pairs.items():
            pictures = _pictures(_array(arrays, x_name, path), path, x_name)
            labels = None if y_name is None else _labels(_array(arrays, y_name, path), len(pictures), path, y_name)
            chosen = request.of_split(name, list(pairs)).choose(len(pictures), labels)
            x = fit(_unit_range(pictures[chosen.numpy()], path, x_name), request.image_spec)
            splits[name] = Split(x, None if labels is None else labels[chosen])
    return Source(path.stem, splits)


def _open(path: Path) -> np.lib.npyio.NpzFile:
    try:
        if (size := sum(entry.file_size for entry in zipfile.ZipFile(path).infolist())) > 4 * MAX_SPLIT_BYTES:
            raise UnusableInput(f"{path}: expected at most {4 * MAX_SPLIT_BYTES} bytes of arrays, came {size}")
        return np.load(path, allow_pickle=False)
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise UnusableInput(f"{path}: is not a readable .npz file ({error})") from None


def _pairs(names: list[str]) -> Mapping[str, tuple[str, str | None]]:
    """Split -> names of its pictures' and its labels' arrays."""
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
    except ValueError:  # object arrays: pictures of mixed size, or a pickle
        raise UnusableInput(
            f"{path}: array {name!r} holds objects, not numbers (pictures of mixed size?); expected one array of "
            "pictures of one size; a folder of picture files may mix sizes"
        ) from None
    except (OSError, zipfile.BadZipFile, EOFError, MemoryError) as error:
        raise UnusableInput(f"{path}: array {name!r} cannot be read ({error})") from None


def _pictures(array: np.ndarray, path: Path, name: str) -> np.ndarray:
    """The array as (N, C, H, W)."""
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or 0 in array.shape[1:]:
        raise UnusableInput(f"{path}: expected {name!r} of shape (N, H, W, C) or (N, C, H, W), came {array.shape}")
    if array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    return array


def _unit_range(array: np.ndarray, path: Path, name: str) -> Tensor:
    """uint8 or floats in [0, 1] as float32 in [0, 1]."""
    if array.dtype == np.uint8:
        return torch.from_numpy(array.astype(np.float32) / 255)
    if array.dtype.kind != "f":
        raise UnusableInput(f"{path}: expected {name!r} as uint8 or as floats in [0, 1], came {array.dtype}")
    if not np.isfinite(array).all():
        raise UnusableInput(f"{path}: {name!r} holds NaN or infinite values; expected floats in [0, 1]")
    if array.size and (array.min() < 0 or array.max() > 1):
        raise UnusableInput(
            f"{path}: expected floats in [0, 1] in {name!r}, came {array.min():g} to {array.max():g}; "
            "undo any normalization, or save as uint8"
        )
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _labels(array: np.ndarray, count: int, path: Path, name: str) -> Tensor:
    array = array.squeeze(1) if array.ndim == 2 and array.shape[1] == 1 else array
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise UnusableInput(
            f"{path}: expected {count} whole numbers in {name!r}, came shape {array.shape} of {array.dtype}"
        )
    return torch.from_numpy(array.astype(np.int64))
