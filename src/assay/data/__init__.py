"""Loaders for data of any common layout: each returns a ``Task`` with inputs for a given model.

Splits keep their names (``valid``, ``val`` and ``dev`` become validation). An audit draws its clean samples from the
split *calibration*. Data without that split gets one: a random draw without overlap, balanced over the classes.

* Source of the draw: train, else validation, else the first split.
* Size: a fifth of the source, at most 2,048 samples. With ``limit``: that many, at most half of the source.
* Exception: data with a single split of fewer than 64 samples stays whole, all of it calibration.

A reader returns numbers and labels of all samples. ``load`` chooses among the numbers, and decodes the chosen samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch

from assay.core.dataset import DataSummary, Split, Task
from assay.core.errors import UnusableInput, foreign_errors
from assay.core.model import InputSpec
from assay.data.codecs import CODECS
from assay.data.image_files import SUFFIXES
from assay.data.labels import align, drop_labels
from assay.data.readers.generated import is_synthetic, read_synthetic
from assay.data.readers.hf_hub import data_hub_id, read_hub
from assay.data.readers.image_folder import read_folder
from assay.data.readers.npz import read_npz
from assay.data.readers.parquet import parquet_files, read_parquet
from assay.data.request import Request, Source, carved_from
from assay.data.splits import carve_calibration, drop_empty
from assay.io.files import check_plain_file
from assay.sandbox.network import network_allowed
from assay.sandbox.phases import reading

__all__ = ["load"]

# Advice on files of other kinds.
FIXES = {
    ".npy": ". Fix: save images and labels as x and y with numpy.savez.",
    ".csv": ". Fix: save images and labels as a parquet file, or one folder of images for each class.",
    **dict.fromkeys(sorted(SUFFIXES), ". Fix: give its folder."),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"), ". Fix: unpack it."),
}


def load(
    source: str | Path | None,
    spec: InputSpec,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    labels: bool = True,
    label_column: str | None = None,
    fewest_classes: int = 2,
    partial: bool = False,
    clean_samples: int | None = None,
) -> Task:
    """Load data as inputs of a model: images (N, C, H, W) float32 in [0, 1], or token numbers (N, L) int64.

    Possible sources:

    * A folder of parquet files in the hub's layout, or one such file. Texts come from these alone.
    * A folder of images: one folder for each class, also below train, test, ..., or flat. Flat names end with
      ``_<label>``.
    * A ``.npz`` file with images and labels.
    * A hub id: ``hf:owner/name``, or ``owner/name`` if there is no such path.
    * Generated data: ``signs``, ``signs:<classes>``, ``digits``; None for signs without labels.

    Args:
        source: The data.
        spec: The model's input specification.
        num_classes: Number of the model's classes, for a check of the labels.
        class_names: Names of the model's classes, for a match with class folders.
        limit: Largest number of samples of each split.
        seed: Seed of the draw.
        labels: False to ignore labels, names and subfolders.
        label_column: Column of the labels in a table, or name of their array in a .npz file; None: a usual name.
        fewest_classes: Smallest number of classes among the labels.
        partial: True to number fewer words or folders than the model has classes from 0 on. The caller compares this
            guess (``summary.unconfirmed``) with the model's predictions.
        clean_samples: Number of clean samples for an audit: only these are decoded, a random draw out of the split
            calibration, in random order. None for all splits.

    Returns:
        The task; its ``notes`` list all guesses.

    Raises:
        UnusableInput: The data cannot be used or does not fit the model.
    """
    if limit is not None and limit < 1:
        raise UnusableInput(f"limit: expected at least 1 sample a split, got {limit}")
    if label_column is not None and not labels:
        raise UnusableInput(
            f"expected either labels or none, got the label column {label_column!r} for data without labels. "
            "Fix: give one of the two options."
        )
    request = Request(spec, limit, seed, num_classes, labels, label_column)
    with _foreign(source):
        found = _read(source, request)
    names = list(found.splits)
    chosen = {name: request.of_split(name, names).choose(split) for name, split in found.splits.items()}
    splits = drop_empty(chosen, found.name)
    if not labels:
        splits = drop_labels(splits)
    aligned = align(splits, found, num_classes, class_names, fewest=fewest_classes, partial=partial)
    carved = carved_from(list(splits))
    summary = DataSummary(
        kind=found.kind,
        totals=found.totals,
        drawn_from=carved or "calibration",
        labels=found.labels_from if aligned.numbering else "",
        numbering=aligned.numbering,
        alternatives=aligned.alternatives,
        unconfirmed=aligned.unconfirmed,
        left_out=tuple(f"{kind}: {count:,}" for kind, count in found.left_out.items() if count),
    )
    parts = carve_calibration(aligned.splits, limit=limit, seed=seed)
    if clean_samples is not None:
        parts = {"calibration": parts["calibration"].sample(clean_samples, seed=seed)}
    origins = {name: name if name in splits else carved or name for name in parts}
    with _foreign(source):
        decoded, notes = _decode(parts, origins, found, request)
    return Task(found.name, decoded, aligned.class_names, (*found.notes, *notes, *aligned.notes), summary)


def _decode(
    parts: Mapping[str, Split], origins: Mapping[str, str], found: Source, request: Request
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Return splits with inputs in place of the numbers of their samples, and notes on the conversion.

    Args:
        parts: The samples' numbers, by split.
        origins: The split of the data that each split is a part of.
        found: Output of the reader.
        request: The requested samples.

    Raises:
        UnusableInput: A sample cannot be decoded, or a split is too large.
    """
    remarks, decoded = Counter[str](), {}
    for origin in dict.fromkeys(origins.values()):
        names = [name for name in parts if origins[name] == origin]
        rows = torch.cat([parts[name].x for name in names]).sort().values
        request.check_size(len(rows))
        x, more = found.decode(origin, rows)
        remarks += more
        for name in names:
            decoded[name] = Split(x[torch.searchsorted(rows, parts[name].x)], parts[name].y)
    return {name: decoded[name] for name in parts}, CODECS[request.spec.modality].notes(remarks, request.spec)


@contextmanager
def _foreign(source: str | Path | None) -> Iterator[None]:
    """Read files with their limits, and with one line for any error."""
    try:
        with foreign_errors(str(source)), _reading(source):
            yield
    except OSError as error:
        raise UnusableInput(f"cannot read {error.filename or source}: {error.strerror or error}") from None


def _reading(source: str | Path | None) -> AbstractContextManager[None]:
    """Return the limits for files; none for generated data."""
    if source is None or is_synthetic(str(source)):
        return nullcontext()
    return reading(f"reading {source}", source)


def _read(source: str | Path | None, request: Request) -> Source:
    text = "" if source is None else str(source)
    path = Path(text)
    if CODECS[request.spec.modality].only_tables:
        return _read_tables(text, request)
    if source is None or is_synthetic(text):
        return read_synthetic(text, request)
    repository = data_hub_id(text)
    if repository is not None:
        with network_allowed(f"downloading {repository}"):
            return read_hub(repository, request)
    if not path.exists():
        raise UnusableInput(
            f"no such data: {text} (expected a folder, a .parquet or .npz file, a hub id, signs, signs:100 or digits)"
        )
    if request.label_column is not None and path.is_dir() and not parquet_files(path):
        raise UnusableInput(
            f"{path}: expected a table for the label column {request.label_column!r}, got a folder without parquet "
            "files. Fix: leave label_column out."
        )
    if path.is_dir():
        return read_parquet(path, request) if parquet_files(path) else read_folder(path, request)
    suffix = path.suffix.lower()
    if suffix in (".npz", ".parquet"):
        check_plain_file(path)
        return read_npz(path, request) if suffix == ".npz" else read_parquet(path, request)
    found = f"a {path.suffix or 'nameless'} file" if path.is_file() else "a pipe or device"
    raise UnusableInput(f"{path}: expected a folder, a .parquet or an .npz file, got {found}{FIXES.get(suffix, '')}")


def _read_tables(text: str, request: Request) -> Source:
    path = Path(text)
    if not text or not path.exists() or not parquet_files(path):
        kind = request.spec.modality
        got = f"no parquet files at {text}" if text else "no data"
        raise UnusableInput(f"expected {kind}s for a {kind} model, as a parquet file or a folder of them; got {got}")
    return read_parquet(path, request)
