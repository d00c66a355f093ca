"""Loaders for data of any common layout: each returns a ``Task`` with inputs for a given model.

Splits keep their names (``valid``, ``val`` and ``dev`` become validation). An audit draws its clean samples from the
split *calibration*. Data without that split gets one: a random draw without overlap, balanced over the classes.

* Source of the draw: train, else validation, else the first split.
* Size: a fifth of the source, at most 2,048 samples. With ``limit``: that many, at most half of the source.
* Exception: data with a single split of fewer than 64 samples stays whole, all of it calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from assay.core.dataset import Task
from assay.core.errors import UnusableInput
from assay.core.model import InputSpec
from assay.data.codecs import CODECS
from assay.data.labels import align, drop_labels
from assay.data.readers.generated import is_synthetic, read_synthetic
from assay.data.readers.hf_hub import data_hub_id, read_hub
from assay.data.readers.image_folder import read_folder
from assay.data.readers.npz import read_npz
from assay.data.readers.parquet import parquet_files, read_parquet
from assay.data.request import Request, Source
from assay.data.splits import carve_calibration, drop_empty

__all__ = ["load"]


def load(
    source: str | Path | None,
    spec: InputSpec,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    labels: bool = True,
    fewest_classes: int = 2,
) -> Task:
    """Load data as inputs of a model: images (N, C, H, W) float32 in [0, 1], or token numbers (N, L) int64.

    Possible sources are

    * a folder of parquet files in the hub's layout, or one such file; texts come from these alone;
    * a folder of images: one folder for each class, also below train, test, ..., or flat, with ``_<label>`` at the
      end of the names;
    * a ``.npz`` file;
    * a hub id: ``hf:owner/name``, or ``owner/name`` if there is no such path;
    * generated data: ``signs``, ``signs:<classes>``, ``digits``; None for signs without labels.

    Args:
        source: The data.
        spec: The model's input specification.
        num_classes: Number of the model's classes, for a check of the labels.
        class_names: Names of the model's classes, for a match with class folders.
        limit: Largest number of samples of each split.
        seed: Seed of the draw.
        labels: False to ignore labels, names and subfolders.
        fewest_classes: Smallest number of classes among the labels.

    Returns:
        The task; its ``notes`` list all guesses.

    Raises:
        UnusableInput: The data cannot be used or does not fit the model.
    """
    if limit is not None and limit < 1:
        raise UnusableInput(f"limit: expected at least 1 sample a split, got {limit}")
    request = Request(spec, limit, seed, num_classes, labels)
    try:
        found = _read(source, request)
    except OSError as error:
        raise UnusableInput(f"cannot read {error.filename or source}: {error.strerror or error}") from None
    splits = drop_empty(found.splits, found.name)
    if not labels:
        splits = drop_labels(splits)
    aligned, names, notes = align(splits, found, num_classes, class_names, fewest=fewest_classes)
    return Task(found.name, carve_calibration(aligned, limit=limit, seed=seed), names, (*found.notes, *notes))


def _read(source: str | Path | None, request: Request) -> Source:
    text = "" if source is None else str(source)
    path = Path(text)
    if CODECS[request.spec.modality].only_tables:
        return _read_tables(text, request)
    if source is None or is_synthetic(text):
        return read_synthetic(text, request)
    repository = data_hub_id(text)
    if repository is not None:
        return read_hub(repository, request)
    if not path.exists():
        raise UnusableInput(
            f"no such data: {text} (expected a folder, a .parquet or .npz file, a hub id, signs, signs:100 or digits)"
        )
    if path.is_file() and path.suffix.lower() == ".npz":
        return read_npz(path, request)
    if parquet_files(path):
        return read_parquet(path, request)
    if path.is_dir():
        return read_folder(path, request)
    raise UnusableInput(
        f"{path}: expected a folder, a .parquet or an .npz file, got a {path.suffix or 'nameless'} file"
    )


def _read_tables(text: str, request: Request) -> Source:
    path = Path(text)
    if not text or not path.exists() or not parquet_files(path):
        kind = request.spec.modality
        got = f"no parquet files at {text}" if text else "no data"
        raise UnusableInput(f"expected {kind}s for a {kind} model, as a parquet file or a folder of them; got {got}")
    return read_parquet(path, request)
